# How classes of ordered members lie in the residual stream: lines, circles, helices, displacements, and their use.


rule find_shapes:
    input:
        **gathered_prompts(),
        model="results/{model}/model.json",
    output:
        **of_geometry("shapes"),
    log:
        "logs/{model}/geometry/find_shapes.log",
    benchmark:
        "benchmarks/{model}/geometry/find_shapes.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **STATISTICS,
        **config["geometry"]["shapes"],
        code=library("scripts/find_shapes.py"),
        run=run_settings,
        prepend_bos=prepend_bos,
        classes=config["geometry"]["classes"],
        tasks=EXPLAINED_TASKS,
        templates=of_prompts("templates"),
        fillers=of_prompts("fillers"),
        random_words=of_prompts("random_words"),
    message:
        "Find how members lie in {wildcards.model}"
    script:
        "../scripts/find_shapes.py"
