# How the order of members is represented: the rules of each analysis, and a target of all of them.


rule geometry:
    input:
        geometry_files(),
    localrule: True
    message:
        "How order is represented: figures in results/figures"
