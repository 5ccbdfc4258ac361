"""Put the parts of the leaderboard together: its table, ranks over fixtures, and the figure."""

from atlas.core.statistics import Bootstrap
from atlas.proof import board_figure, board_ranks
from atlas.report import style
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

table = artifacts.read_tables(inputs.tables)
ranks = board_ranks.ranked(table, Bootstrap(p.bootstrap, p.seed))
provenance = job.provenance(snakemake)
for name, content in (("table", table), ("ranks", ranks)):
    artifacts.write_table(content, out[name], provenance)
    with artifacts.atomic(out[f"{name}_csv"]) as path:
        content.to_csv(path, index=False, float_format="%.6f")
figure = board_figure.draw(table, ranks)
style.save(figure, out.figure, p.dpi, provenance, title=board_figure.TITLE, caption=board_figure.CAPTION)
