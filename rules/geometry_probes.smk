# Can the place of a member in its class be read linearly, by a probe that never saw the class?


rule probe_members:
    input:
        model="results/{model}/model.json",
    output:
        **of_geometry("probes"),
    log:
        "logs/{model}/probe_members.log",
    benchmark:
        "benchmarks/{model}/probe_members.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **STATISTICS,
        **config["geometry"]["probes"],
        code=library("scripts/probe_members.py"),
        run=run_settings,
        prepend_bos=prepend_bos,
        classes=config["geometry"]["classes"],
        templates=lambda wildcards: config["prompts"]["templates"],  # whose braces are no wildcards
        fillers=config["prompts"]["fillers"],
        random_words=config["prompts"]["random_words"],
    message:
        "Probe the members of classes in {wildcards.model}"
    script:
        "../scripts/probe_members.py"
