# Steering from one sequence to another, by a vector or by outputs of heads.


rule steer:
    input:
        model="results/{model}/model.json",
        circuits="results/{model}/comparison/circuits.json",
        prompts=each(EXPLAINED, "prompts.parquet"),
        unrelated=expand("results/{{model}}/{task}/prompts.parquet", task=UNRELATED_TASKS),
    output:
        **of_geometry("steering"),
    log:
        "logs/{model}/steer.log",
    benchmark:
        "benchmarks/{model}/steer.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **REPORTED,
        **STATISTICS,
        **config["geometry"]["steering"],
        code=library("scripts/steer.py"),
        run=run_settings,
        prepend_bos=prepend_bos,
        main_tasks=MAIN_TASKS,
        tasks=sequences(),
        classes=config["geometry"]["classes"],
    message:
        "Steer {wildcards.model} from one sequence to another"
    script:
        "../scripts/steer.py"
