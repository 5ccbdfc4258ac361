# What patching restores, what writes the answer, and where it appears: one job per task.


rule explain_task:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        layout="results/{model}/{task}/prompts.json",
        clean="results/{model}/{task}/clean.parquet",
    output:
        **made(
            "results/{model}/{task}", "patching", "attribution", "lens", "lens_tokens", "lens_lead", "lens_increments"
        ),
    log:
        "logs/{model}/{task}/explain_task.log",
    benchmark:
        "benchmarks/{model}/{task}/explain_task.tsv"
    wildcard_constraints:
        task=one_of(EXPLAINED_TASKS),
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **STATISTICS,
        code=library_of_task("scripts/explain_task.py"),
        run=run_settings,
        task=task_settings,
        prepend_bos=prepend_bos,
        allow_negative_clean=of_task("allow_negative_clean"),
        patching_prompts=config["heads"]["patching_prompts"],
        patching_corruption=config["heads"]["patching_corruption"],
        lens_tokens=config["heads"]["lens_tokens"],
    message:
        "Explain {wildcards.task} in {wildcards.model} by patching, attribution and logit lens"
    script:
        "../scripts/explain_task.py"
