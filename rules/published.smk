# A study beside a published one: the table, and the figure that shows it. Without `published` there is nothing here.


rule compare_published:
    input:
        unpack(generated_texts),
        model="results/{model}/model.json",
        prompts=main_task_table("prompts.parquet"),
        info=main_task_table("prompts.json"),
        clean=main_task_table("clean_summary.parquet"),
        effects=main_task_table("component_effects.parquet"),
        faithfulness=main_task_table("faithfulness.parquet"),
        evaluation=main_task_table("evaluation.parquet"),
        minimality=main_task_table("minimality.parquet"),
        membership="results/{model}/comparison/membership.parquet",
        cross="results/{model}/comparison/cross.parquet",
        ov=main_task_table("ov.parquet"),
        lens_increments=main_task_table("lens_increments.parquet"),
        attribution=main_task_table("attribution.parquet"),
        patching=main_task_table("patching.parquet"),
    output:
        ensure("results/{model}/comparison/published.parquet", non_empty=True),
    log:
        "logs/{model}/compare_published.log",
    benchmark:
        "benchmarks/{model}/compare_published.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=library("scripts/compare_published.py"),
        publication=published_files(),
        settings=published_settings,
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
    message:
        "Compare {wildcards.model} with published figures"
    script:
        "../scripts/compare_published.py"


rule plot_published:
    input:
        table="results/{model}/comparison/published.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.published.svg",
            caption="../report/published.rst",
            category="Published figures",
            labels={"model": "{model}", "task": "all", "figure": "ours against published"},
        ),
        png="results/figures/{model}/{model}.published.png",
    log:
        "logs/{model}/plot_published.log",
    benchmark:
        "benchmarks/{model}/plot_published.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        code=library("scripts/plot_published.py"),
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw {wildcards.model} against published figures"
    script:
        "../scripts/plot_published.py"
