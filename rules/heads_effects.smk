# What patching restores, what writes the answer, and where it appears: one job per task.


rule explain_task:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        layout="results/{model}/{task}/prompts.json",
        clean="results/{model}/{task}/clean.parquet",
    output:
        **with_analyses("patching", "attribution", "lens", "lens_tokens", "lens_lead", "lens_increments"),
    log:
        "logs/{model}/{task}/explain_task.log",
    benchmark:
        "benchmarks/{model}/{task}/explain_task.tsv"
    wildcard_constraints:
        task=one_of(EXPLAINED_TASKS),
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=gpu,
    params:
        code=library("scripts/explain_task.py"),
        run=run_settings,
        allow_negative_clean=allow_negative_clean,
        patching_prompts=config["heads"]["patching_prompts"],
        lens_tokens=config["heads"]["lens_tokens"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Explain {wildcards.task} in {wildcards.model} by patching, attribution and logit lens"
    script:
        "../scripts/explain_task.py"
