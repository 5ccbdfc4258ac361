# Successor heads, from weights alone.


rule score_successors:
    input:
        model="results/{model}/model.json",
    output:
        **of_geometry("successors"),
    log:
        "logs/{model}/geometry/score_successors.log",
    benchmark:
        "benchmarks/{model}/geometry/score_successors.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 30, gpu=True),
    params:
        code=library("scripts/score_successors.py"),
        run=run_settings,
        classes=config["geometry"]["classes"],
        draws=config["geometry"]["successors"]["draws"],
        seed=config["statistics"]["seed"],
    message:
        "Score successor heads of {wildcards.model}"
    script:
        "../scripts/score_successors.py"
