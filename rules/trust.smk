# Do the circuits stand up: hypothesis tests, sequences and wordings that no search saw, and unrelated tasks.


rule test_circuits:
    input:
        **computed_from(chosen="chosen.json"),
        circuits="results/{model}/comparison/consensus.json",
    output:
        **filled("results/{model}/{task}", tests="hypotheses.parquet", members="member_tests.parquet"),
    log:
        "logs/{model}/{task}/test_circuits.log",
    benchmark:
        "benchmarks/{model}/{task}/test_circuits.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **STATISTICS,
        code=library("scripts/test_circuits.py"),
        run=run_settings,
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        threshold=config["comparison"]["threshold"],
        permutations=config["trust"]["permutations"],
    message:
        "Test the circuits of {wildcards.model} for {wildcards.task}"
    script:
        "../scripts/test_circuits.py"


rule evaluate_unseen:
    input:
        **computed_from(chosen="chosen.json"),
        circuits="results/{model}/comparison/consensus.json",
    output:
        **filled("results/{model}/{task}", controls="unseen_controls.parquet"),
    log:
        "logs/{model}/{task}/evaluate_unseen.log",
    benchmark:
        "benchmarks/{model}/{task}/evaluate_unseen.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **STATISTICS,
        code=library_of_task("scripts/evaluate_unseen.py"),
        run=run_settings,
        task=task_settings,
        prepend_bos=prepend_bos,
        filter=of_task("filter"),
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        threshold=config["comparison"]["threshold"],
        wordings=config["stability"]["templates"],
        per_template=config["trust"]["per_template"],
        controls=config["trust"]["controls"],
    message:
        "Evaluate the circuit of {wildcards.model} for {wildcards.task} on what no search saw"
    script:
        "../scripts/evaluate_unseen.py"


rule evaluate_elsewhere:
    input:
        **computed_from(),
        circuits="results/{model}/comparison/circuits.json",
        consensus="results/{model}/comparison/consensus.json",
    output:
        **filled("results/{model}/{task}", controls="elsewhere.parquet"),
    log:
        "logs/{model}/{task}/evaluate_elsewhere.log",
    benchmark:
        "benchmarks/{model}/{task}/evaluate_elsewhere.tsv"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(4000, 120, gpu=True),
    params:
        **REPORTED,
        **STATISTICS,
        code=library("scripts/evaluate_elsewhere.py"),
        run=run_settings,
        allow_negative_clean=of_task("allow_negative_clean"),
        kind=config["ablation"]["kind"],
        legacy_mlp_means=config["search"]["legacy_mlp_means"],
        main_tasks=MAIN_TASKS,
        controls=lambda wildcards: config["trust"]["controls"] if wildcards.task in UNRELATED_TASKS else 0,
    message:
        "Evaluate the circuits of {wildcards.model} on {wildcards.task}, which is another task"
    script:
        "../scripts/evaluate_elsewhere.py"


rule gather_trust:
    input:
        tests=each(MAIN, "hypotheses.parquet"),
        members=each(MAIN, "member_tests.parquet"),
        unseen=each(MAIN, "unseen_controls.parquet"),
        own=each(MAIN, "controls.parquet"),
        shared=each(MAIN, "consensus_controls.parquet"),
        elsewhere=lambda wildcards: expand(
            "results/{model}/{task}/elsewhere.parquet",
            model=wildcards.model,
            task=MAIN_TASKS + UNRELATED_TASKS,
        ),
    output:
        **filled(
            "results/{model}/comparison",
            tests="hypotheses.parquet",
            members="member_tests.parquet",
            unseen="unseen.parquet",
            specificity="specificity.parquet",
        ),
    log:
        "logs/{model}/gather_trust.log",
    benchmark:
        "benchmarks/{model}/gather_trust.tsv"
    group:
        "tables"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(2000, 20),
    params:
        code=library("scripts/gather_trust.py"),
        main_tasks=MAIN_TASKS,
        unrelated=UNRELATED_TASKS,
    message:
        "Gather the tests of the circuits of {wildcards.model}"
    script:
        "../scripts/gather_trust.py"
