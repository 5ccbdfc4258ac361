# Where heads attend, what they write, which back up which, and what they are called.


rule explain_heads:
    input:
        **computed_from(),
        all_prompts="results/{model}/comparison/prompts.parquet",
        all_layouts="results/{model}/comparison/layouts.json",
        circuits="results/{model}/comparison/circuits.json",
    output:
        **made("results/{model}/{task}", "attention", "attention_members", "patterns", "ov", "backup"),
    log:
        "logs/{model}/{task}/explain_heads.log",
    benchmark:
        "benchmarks/{model}/{task}/explain_heads.tsv"
    wildcard_constraints:
        task=one_of(EXPLAINED_TASKS),
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **REPORTED,
        **STATISTICS,
        code=library("scripts/explain_heads.py"),
        run=run_settings,
        tasks=EXPLAINED_TASKS,
        members=words_of_tasks(),
        random_words=of_task("random_words"),
        k=config["heads"]["ov"]["k"],
        norms=config["heads"]["ov"]["norms"],
        pattern_prompts=config["heads"]["pattern_prompts"],
        kind=config["ablation"]["kind"],
    message:
        "Explain the heads of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/explain_heads.py"


rule detect_heads:
    input:
        model="results/{model}/model.json",
    output:
        **filled("results/{model}", detectors="detectors.parquet"),
    log:
        "logs/{model}/detect_heads.log",
    benchmark:
        "benchmarks/{model}/detect_heads.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 60, gpu=True),
    params:
        **STATISTICS,
        code=library("scripts/detect_heads.py"),
        run=run_settings,
        prepend_bos=prepend_bos,
        draws=config["heads"]["random_heads"]["draws"],
        length=config["heads"]["detectors"]["length"],
        sequences=config["heads"]["detectors"]["sequences"],
    message:
        "Detect previous-token, duplicate-token and induction heads of {wildcards.model}"
    script:
        "../scripts/detect_heads.py"


rule score_roles:
    input:
        model="results/{model}/model.json",
        prompts="results/{model}/{task}/prompts.parquet",
        layout="results/{model}/{task}/prompts.json",
        clean="results/{model}/{task}/clean.parquet",
    output:
        **filled("results/{model}/{task}", role_scores="role_scores.parquet"),
        **(made("results/{model}/{task}", "mlp_answers", "mlp_tokens") if "attribution" in ANALYSES else {}),
    log:
        "logs/{model}/{task}/score_roles.log",
    benchmark:
        "benchmarks/{model}/{task}/score_roles.tsv"
    wildcard_constraints:
        task=one_of(EXPLAINED_TASKS),
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **STATISTICS,
        code=library("scripts/score_roles.py"),
        run=run_settings,
        allow_negative_clean=of_task("allow_negative_clean"),
        analyses=[name for name in ("attention", "ov", "attribution") if name in ANALYSES],
        random_words=of_task("random_words"),
        draws=config["heads"]["random_heads"]["draws"],
        prompts=config["heads"]["random_heads"]["prompts"],
        tokens=config["heads"]["lens_tokens"],
    message:
        "Score roles of the heads of {wildcards.model} on {wildcards.task} beside random heads"
    script:
        "../scripts/score_roles.py"


# For labels, beside detectors and effects
EVIDENCE = contents.of(EXPLAINED, "patching", "attribution", "attention_members", "ov", "role_scores")


rule label_heads:
    input:
        unpack(as_made(EVIDENCE | {"detectors": Table("detectors.parquet")})),
        model="results/{model}/model.json",
        circuits="results/{model}/comparison/circuits.json",
        effects=each(ON_MAIN, "component_effects.parquet"),
    output:
        **filled("results/{model}/comparison", roles="roles.parquet", role_tests="role_tests.parquet"),
    log:
        "logs/{model}/label_heads.log",
    benchmark:
        "benchmarks/{model}/label_heads.tsv"
    group:
        "tables"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        **REPORTED,
        code=library("scripts/label_heads.py"),
        main_tasks=EXPLAINED_MAIN,
        tasks=EXPLAINED_TASKS,
        tables=list(shown.made(EVIDENCE, STUDY)),
        detectors="detectors" in ANALYSES,
        kind=config["ablation"]["kind"],
        k=LARGEST_K,
        labels=config["heads"]["labels"],
    message:
        "Label the heads of {wildcards.model}"
    script:
        "../scripts/label_heads.py"
