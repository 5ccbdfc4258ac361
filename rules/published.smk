# A study beside a published one. Without `published` there is nothing here.


rule compare_published:
    input:
        unpack(generated_texts),
        model="results/{model}/model.json",
        prompts=each(MAIN, "prompts.parquet"),
        info=each(MAIN, "prompts.json"),
        clean=each(MAIN, "clean_summary.parquet"),
        effects=each(MAIN, "component_effects.parquet"),
        choice=each(MAIN, "choice.parquet"),
        evaluation=each(MAIN, "evaluation.parquet"),
        minimality=each(MAIN, "minimality.parquet"),
        membership="results/{model}/comparison/membership.parquet",
        cross="results/{model}/comparison/cross.parquet",
        ov=each(MAIN, "ov.parquet"),
        lens_increments=each(MAIN, "lens_increments.parquet"),
        attribution=each(MAIN, "attribution.parquet"),
        patching=each(MAIN, "patching.parquet"),
    output:
        ensure("results/{model}/comparison/published.parquet", non_empty=True),
    log:
        "logs/{model}/compare_published.log",
    benchmark:
        "benchmarks/{model}/compare_published.tsv"
    group:
        "tables"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 10),
    params:
        **REPORTED,
        code=library("scripts/compare_published.py"),
        publication=published_files(),
        settings=published_settings,
    message:
        "Compare {wildcards.model} with published figures"
    script:
        "../scripts/compare_published.py"
