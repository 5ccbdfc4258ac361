# What a model writes while heads are ablated.


rule generate:
    input:
        model="results/{model}/model.json",
        circuits="results/{model}/comparison/circuits.json",
    output:
        **filled(
            "results/{model}/generation",
            prompts="prompts.parquet",
            heads="heads.parquet",
            outputs="outputs.parquet",
            summary="summary.parquet",
        ),
    log:
        "logs/{model}/generate.log",
    benchmark:
        "benchmarks/{model}/generate.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **REPORTED,
        **STATISTICS,
        code=library("scripts/generate.py"),
        run=run_settings,
        prepend_bos=prepend_bos,
        kind=config["generation"]["kind"],
        sets=config["generation"]["sets"],
        own=config["generation"]["own"],
        controls=config["generation"]["controls"],
        per_text=config["generation"]["per_text"],
        prompts=GENERATION,
    message:
        "Generate with {wildcards.model} under ablation"
    script:
        "../scripts/generate.py"
