"""Put together what each method of the leaderboard cost: numbers of a clock and of a machine, which never reproduce."""

from atlas.store import artifacts, job

job.start(snakemake)

table = artifacts.read_tables(snakemake.input)
with artifacts.atomic(snakemake.output[0]) as path:
    table.to_csv(path, index=False, float_format="%.3f")
