# Figures and summary pages: from tables only. A rule takes just the settings that its figure shows.


rule plot_dataset:
    input:
        prompts="results/{model}/{task}/prompts.parquet",
        info="results/{model}/{task}/prompts.json",
    output:
        svg=report(
            "results/figures/{model}/{model}.{task}.dataset.svg",
            caption="../report/dataset.rst",
            category="2 Data",
            labels={"model": "{model}", "task": "{task}", "figure": "prompts"},
        ),
        png="results/figures/{model}/{model}.{task}.dataset.png",
    log:
        "logs/{model}/{task}/plot_dataset.log",
    benchmark:
        "benchmarks/{model}/{task}/plot_dataset.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_dataset.py"),
        clean=config["figures"]["clean"],
        corrupted=config["figures"]["corrupted"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw prompts of {wildcards.task} for {wildcards.model}"
    script:
        "../scripts/plot_dataset.py"


rule plot_clean_accuracy:
    input:
        summaries=task_table("clean_summary.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.clean_accuracy.svg",
            caption="../report/clean_accuracy.rst",
            category="2 Data",
            labels={"model": "{model}", "task": "all", "figure": "clean accuracy"},
        ),
        png="results/figures/{model}/{model}.clean_accuracy.png",
    log:
        "logs/{model}/plot_clean_accuracy.log",
    benchmark:
        "benchmarks/{model}/plot_clean_accuracy.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_clean_accuracy.py"),
        tasks=ALL_TASKS,
        main_tasks=MAIN_TASKS,
        clean=config["figures"]["clean"],
        corrupted=config["figures"]["corrupted"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw clean accuracy of {wildcards.model}"
    script:
        "../scripts/plot_clean_accuracy.py"


rule plot_component_effects:
    input:
        effects="results/{model}/{task}/component_effects.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.{task}.component_effects.svg",
            caption="../report/component_effects.rst",
            category="3 Components",
            labels={
                "model": "{model}",
                "task": "{task}",
                "figure": "component effects",
            },
        ),
        png="results/figures/{model}/{model}.{task}.component_effects.png",
    log:
        "logs/{model}/{task}/plot_component_effects.log",
    benchmark:
        "benchmarks/{model}/{task}/plot_component_effects.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_component_effects.py"),
        kind=config["ablation"]["kind"],
        diverging=config["figures"]["diverging"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw component effects of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/plot_component_effects.py"


rule plot_search_trajectory:
    input:
        trace="results/{model}/{task}/trace.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.{task}.search_trajectory.svg",
            caption="../report/search_trajectory.rst",
            category="4 Circuits",
            labels={
                "model": "{model}",
                "task": "{task}",
                "figure": "search trajectory",
            },
        ),
        png="results/figures/{model}/{model}.{task}.search_trajectory.png",
    log:
        "logs/{model}/{task}/plot_search_trajectory.log",
    benchmark:
        "benchmarks/{model}/{task}/plot_search_trajectory.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_search_trajectory.py"),
        orders=[config["comparison"]["order"]],
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw the search of {wildcards.model} on {wildcards.task}"
    script:
        "../scripts/plot_search_trajectory.py"


rule plot_circuit_size:
    input:
        faithfulness=main_task_table("faithfulness.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.circuit_size.svg",
            caption="../report/circuit_size.rst",
            category="4 Circuits",
            labels={"model": "{model}", "task": "all", "figure": "size and score"},
        ),
        png="results/figures/{model}/{model}.circuit_size.png",
    log:
        "logs/{model}/plot_circuit_size.log",
    benchmark:
        "benchmarks/{model}/plot_circuit_size.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_circuit_size.py"),
        main_tasks=MAIN_TASKS,
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw circuit sizes of {wildcards.model}"
    script:
        "../scripts/plot_circuit_size.py"


rule plot_survival:
    input:
        survival=main_task_table("survival.parquet"),
    output:
        svg=report(
            "results/figures/{model}/{model}.survival.svg",
            caption="../report/survival.rst",
            category="4 Circuits",
            labels={
                "model": "{model}",
                "task": "all",
                "figure": "survival over orders",
            },
        ),
        png="results/figures/{model}/{model}.survival.png",
    log:
        "logs/{model}/plot_survival.log",
    benchmark:
        "benchmarks/{model}/plot_survival.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_survival.py"),
        main_tasks=MAIN_TASKS,
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw survival of components of {wildcards.model}"
    script:
        "../scripts/plot_survival.py"


rule plot_circuit_diagram:
    input:
        membership="results/{model}/comparison/membership.parquet",
        effects=circuit_effects,
    output:
        svg=report(
            "results/figures/{model}/{model}.{circuit}.circuit_diagram.svg",
            caption="../report/circuit_diagram.rst",
            category="4 Circuits",
            labels={"model": "{model}", "task": "{circuit}", "figure": "circuit"},
        ),
        png="results/figures/{model}/{model}.{circuit}.circuit_diagram.png",
    log:
        "logs/{model}/{circuit}/plot_circuit_diagram.log",
    benchmark:
        "benchmarks/{model}/{circuit}/plot_circuit_diagram.tsv"
    wildcard_constraints:
        circuit="|".join(map(re.escape, [*MAIN_TASKS, "shared"])),
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_circuit_diagram.py"),
        main_tasks=MAIN_TASKS,
        kind=config["ablation"]["kind"],
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw circuit {wildcards.circuit} of {wildcards.model}"
    script:
        "../scripts/plot_circuit_diagram.py"


rule plot_overlap:
    input:
        membership="results/{model}/comparison/membership.parquet",
        overlap="results/{model}/comparison/overlap.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.overlap.svg",
            caption="../report/overlap.rst",
            category="5 Overlap",
            labels={"model": "{model}", "task": "all", "figure": "overlap"},
        ),
        png="results/figures/{model}/{model}.overlap.png",
    log:
        "logs/{model}/plot_overlap.log",
    benchmark:
        "benchmarks/{model}/plot_overlap.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_overlap.py"),
        main_tasks=MAIN_TASKS,
        clean=config["figures"]["clean"],
        circuit=config["figures"]["circuit"],
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw the overlap of circuits of {wildcards.model}"
    script:
        "../scripts/plot_overlap.py"


rule plot_cross_matrix:
    input:
        cross="results/{model}/comparison/cross.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.cross_matrix.svg",
            caption="../report/cross_matrix.rst",
            category="5 Overlap",
            labels={"model": "{model}", "task": "all", "figure": "cross-task matrix"},
        ),
        png="results/figures/{model}/{model}.cross_matrix.png",
    log:
        "logs/{model}/plot_cross_matrix.log",
    benchmark:
        "benchmarks/{model}/plot_cross_matrix.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_cross_matrix.py"),
        tasks=ALL_TASKS,
        main_tasks=MAIN_TASKS,
        sequential=config["figures"]["sequential"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw circuits of {wildcards.model} on every task"
    script:
        "../scripts/plot_cross_matrix.py"


rule plot_controls:
    input:
        controls="results/{model}/comparison/controls.parquet",
        summary="results/{model}/comparison/controls_summary.parquet",
    output:
        svg=report(
            "results/figures/{model}/{model}.controls.svg",
            caption="../report/controls.rst",
            category="6 Controls",
            labels={"model": "{model}", "task": "all", "figure": "random controls"},
        ),
        png="results/figures/{model}/{model}.controls.png",
    log:
        "logs/{model}/plot_controls.log",
    benchmark:
        "benchmarks/{model}/plot_controls.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/plot_controls.py"),
        tasks=ALL_TASKS,
        circuit=config["figures"]["circuit"],
        dpi=config["figures"]["dpi"],
    message:
        "Draw random controls of {wildcards.model}"
    script:
        "../scripts/plot_controls.py"


rule write_summary:
    input:
        model="results/{model}/model.json",
        info=task_table("prompts.json"),
        prompts=main_task_table("prompts.parquet"),
        clean=task_table("clean_summary.parquet"),
        faithfulness=main_task_table("faithfulness.parquet"),
        survival=main_task_table("survival.parquet"),
        membership="results/{model}/comparison/membership.parquet",
        overlap="results/{model}/comparison/overlap.parquet",
        cross="results/{model}/comparison/cross.parquet",
        controls_summary="results/{model}/comparison/controls_summary.parquet",
    output:
        summary=report(
            "results/figures/{model}/{model}.summary.html",
            caption="../report/summary.rst",
            category="1 Summary",
            labels={"model": "{model}", "page": "findings"},
        ),
        tables=report(
            "results/figures/{model}/{model}.tables.html",
            caption="../report/tables.rst",
            category="1 Summary",
            labels={"model": "{model}", "page": "tables"},
        ),
    log:
        "logs/{model}/write_summary.log",
    benchmark:
        "benchmarks/{model}/write_summary.tsv"
    conda:
        "../envs/environment.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=library("scripts/write_summary.py"),
        title=config["study"]["title"],
        main_tasks=MAIN_TASKS,
        tasks=ALL_TASKS,
        threshold=config["comparison"]["threshold"],
        order=config["comparison"]["order"],
        kind=config["ablation"]["kind"],
        groups=config["ablation"]["groups"],
        thresholds=config["search"]["thresholds"],
        orders=list(settings.order_names(config["search"]["orders"])),
        bootstrap=config["statistics"]["bootstrap"],
        controls=config["comparison"]["controls"],
    message:
        "Write the summary of {wildcards.model}"
    script:
        "../scripts/write_summary.py"
