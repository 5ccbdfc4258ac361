# Figures and pages: from tables only. Which there are stands in scripts/atlas/report/contents.py; a rule takes just the
# settings that its figure shows.

for name, rows in contents.BY_RULE.items():
    if name.startswith("plot_"):

        rule:
            name:
                name
            input:
                unpack(tables_of(name)),
            output:
                figure_files(rows),
            log:
                of_job(rows[0], "logs", "log"),
            benchmark:
                of_job(rows[0], "benchmarks", "tsv")
            wildcard_constraints:
                **drawn_for(rows[0]),
            group:
                "figures"
            conda:
                "../envs/environment.yaml"
            resources:
                **needs(1000, 10),
            params:
                **shown_with(rows),
                code=figure_code(rows),
                note=rows[0].note(STUDY),
                dpi=config["figures"]["dpi"],
            message:
                rows[0].message
            script:
                "../scripts/plot.py"


rule write_data_page:
    input:
        unpack(tables_of("write_data_page")),
    output:
        **filled("results/{model}", table="data_check.parquet", digest="data_check.txt"),
        page=in_report(contents.BY_RULE["write_data_page"][0]),
    log:
        "logs/{model}/write_data_page.log",
    benchmark:
        "benchmarks/{model}/write_data_page.tsv"
    priority: DATA_FIRST
    group:
        "figures"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(1000, 10),
    params:
        **STATISTICS,
        code=library("scripts/write_data_page.py"),
        title=config["study"]["title"],
        main_tasks=MAIN_TASKS,
        tasks=data_settings(),
        groups=config["ablation"]["groups"],
    message:
        "Look at the data of {wildcards.model}"
    script:
        "../scripts/write_data_page.py"


rule check_data:
    input:
        digests=expand("results/{model}/data_check.txt", model=MODELS),
        pages=expand("results/figures/{model}/{model}.data.html", model=MODELS),
    log:
        "logs/check_data.log",
    localrule: True
    conda:
        "../envs/environment.yaml"
    message:
        "The pages with every example: {input.pages}"
    shell:
        "cat {input.digests} | tee {log}"


rule write_head_pages:
    input:
        unpack(tables_of("write_head_pages")),
    output:
        **pages("write_head_pages"),
    log:
        "logs/{model}/write_head_pages.log",
    benchmark:
        "benchmarks/{model}/write_head_pages.tsv"
    group:
        "figures"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(1000, 10),
    params:
        code=library("scripts/write_head_pages.py"),
        note=contents.BY_RULE["write_head_pages"][0].note(STUDY),
        title=config["study"]["title"],
        main_tasks=EXPLAINED_MAIN,
        tasks=EXPLAINED_TASKS,
        kind=config["ablation"]["kind"],
        labels=config["heads"]["labels"],
        k=LARGEST_K,
        pattern_prompts=config["heads"]["pattern_prompts"],
        clean=config["figures"]["clean"],
        sequential=config["figures"]["sequential"],
    message:
        "Write cards of the heads of {wildcards.model}"
    script:
        "../scripts/write_head_pages.py"


rule write_summary:
    input:
        unpack(tables_of("write_summary")),
    output:
        **pages("write_summary"),
    log:
        "logs/{model}/write_summary.log",
    benchmark:
        "benchmarks/{model}/write_summary.tsv"
    group:
        "figures"
    conda:
        "../envs/environment.yaml"
    resources:
        **needs(1000, 10),
    params:
        code=library("scripts/write_summary.py"),
        note=contents.BY_RULE["write_summary"][0].note(STUDY),
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
        labels=config["heads"]["labels"],
    message:
        "Write the summary of {wildcards.model}"
    script:
        "../scripts/write_summary.py"
