# What each point of the residual stream says of the final answer, through an affine map learned for it.


rule tune_lens:
    input:
        model="results/{model}/model.json",
        prompts=each(ON_MAIN, "prompts.parquet"),
        clean=each(ON_MAIN, "clean.parquet"),
    output:
        **of_geometry("tuned_lens"),
    log:
        "logs/{model}/tune_lens.log",
    benchmark:
        "benchmarks/{model}/tune_lens.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(6000, 60, gpu=True),
    params:
        **STATISTICS,
        **config["geometry"]["tuned_lens"],
        code=library("scripts/tune_lens.py"),
        run=run_settings,
        tasks=EXPLAINED_MAIN,
    message:
        "Tune a lens of {wildcards.model}"
    script:
        "../scripts/tune_lens.py"
