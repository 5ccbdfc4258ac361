# Where heads attend, what they write, which back up which, and what they are called.


rule explain_heads:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        clean="results/{model}/{task}/clean.parquet",
        means="results/{model}/{task}/means.pt",
        activations="results/{model}/{task}/activations.pt",
        all_prompts="results/{model}/comparison/prompts.parquet",
        all_layouts="results/{model}/comparison/layouts.json",
        circuits="results/{model}/comparison/circuits.json",
    output:
        **with_analyses("attention", "attention_members", "patterns", "ov", "backup"),
    log:
        "logs/{model}/{task}/explain_heads.log",
    benchmark:
        "benchmarks/{model}/{task}/explain_heads.tsv"
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
        code=library("scripts/explain_heads.py"),
        run=run_settings,
        tasks=EXPLAINED_TASKS,
        members=words_of_tasks(),
        random_words=lambda wildcards: settings.task_block(config, wildcards.task)["random_words"],
        k=config["heads"]["ov"]["k"],
        norms=config["heads"]["ov"]["norms"],
        pattern_prompts=config["heads"]["pattern_prompts"],
        kind=config["ablation"]["kind"],
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Explain the heads of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/explain_heads.py"


rule detect_heads:
    input:
        model="results/{model}/model.json",
    output:
        detectors=ensure("results/{model}/detectors.parquet", non_empty=True),
    log:
        "logs/{model}/detect_heads.log",
    benchmark:
        "benchmarks/{model}/detect_heads.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=gpu,
    params:
        code=library("scripts/detect_heads.py"),
        run=run_settings,
        prepend_bos=lambda wildcards: model_block(wildcards)["prepend_bos"],
        length=config["heads"]["detectors"]["length"],
        sequences=config["heads"]["detectors"]["sequences"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["statistics"]["seed"],
    message:
        "Detect previous-token, duplicate-token and induction heads of {wildcards.model}"
    script:
        "../scripts/detect_heads.py"


EVIDENCE = ("patching", "attribution", "attention_members", "ov")  # for labels, beside detectors and effects


rule label_heads:
    input:
        unpack(head_inputs(EXPLAINED_TASKS, *EVIDENCE)),
        circuits="results/{model}/comparison/circuits.json",
        effects=explained_main_table("component_effects.parquet"),
    output:
        roles=ensure("results/{model}/comparison/roles.parquet", non_empty=True),
    log:
        "logs/{model}/label_heads.log",
    benchmark:
        "benchmarks/{model}/label_heads.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        code=library("scripts/label_heads.py"),
        main_tasks=EXPLAINED_MAIN,
        tasks=EXPLAINED_TASKS,
        tables=made(EVIDENCE),
        detectors="detectors" in ANALYSES,
        kind=config["ablation"]["kind"],
        order=config["comparison"]["order"],
        threshold=config["comparison"]["threshold"],
        k=max(config["heads"]["ov"]["k"]),
        labels=config["heads"]["labels"],
    message:
        "Label the heads of the circuits of {wildcards.model}"
    script:
        "../scripts/label_heads.py"
