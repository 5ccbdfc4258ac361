# What a model writes while heads are ablated, and the figure and page that show it.


rule generate:
    input:
        model="results/{model}/model.json",
        circuits="results/{model}/comparison/circuits.json",
    output:
        prompts=ensure("results/{model}/generation/prompts.parquet", non_empty=True),
        heads=ensure("results/{model}/generation/heads.parquet", non_empty=True),
        outputs=ensure("results/{model}/generation/outputs.parquet", non_empty=True),
        summary=ensure("results/{model}/generation/summary.parquet", non_empty=True),
    log:
        "logs/{model}/generate.log",
    benchmark:
        "benchmarks/{model}/generate.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        code=library("scripts/generate.py"),
        run=run_settings,
        prepend_bos=lambda wildcards: model_block(wildcards)["prepend_bos"],
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
        kind=config["generation"]["kind"],
        sets=config["generation"]["sets"],
        own=config["generation"]["own"],
        controls=config["generation"]["controls"],
        per_text=config["generation"]["per_text"],
        prompts=GENERATION,
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Generate with {wildcards.model} under ablation"
    script:
        "../scripts/generate.py"


rule plot_generation:
    input:
        heads="results/{model}/generation/heads.parquet",
        prompts="results/{model}/generation/prompts.parquet",
        outputs="results/{model}/generation/outputs.parquet",
        summary="results/{model}/generation/summary.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.generation.svg",
            caption="../report/generation.rst",
            category="9 Generation",
            labels={"model": "{model}", "task": "all", "figure": "right under ablation"},
        ),
        png="results/figures/{model}/{model}.generation.png",
        page=report(
            "results/figures/{model}/{model}.generation.html",
            caption="../report/generation_outputs.rst",
            category="9 Generation",
            labels={"model": "{model}", "task": "all", "figure": "what it wrote"},
        ),
    log:
        "logs/{model}/plot_generation.log",
    benchmark:
        "benchmarks/{model}/plot_generation.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_generation.py"),
        kind=config["generation"]["kind"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw what {wildcards.model} wrote under ablation"
    script:
        "../scripts/plot_generation.py"
