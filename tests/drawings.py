"""What every figure has to do, whatever it shows."""

from atlas.report import style


def check_written(figures, folder) -> None:
    """A figure is written whole, as text and without a date; several drawings of it with the same bytes."""
    names = [f"drawing {i}" for i in range(len(figures))]
    for name, figure in zip(names, figures, strict=True):
        style.save(figure, folder / f"{name}.svg", dpi=30)
    assert {p.name for p in folder.iterdir()} == {f"{n}.{kind}" for n in names for kind in ("png", "svg", "pdf")}
    for kind in ("svg", "png", "pdf"):
        assert len({(folder / f"{name}.{kind}").read_bytes() for name in names}) == 1
    svg = (folder / "drawing 0.svg").read_text()
    assert "<text" in svg and "<dc:date>" not in svg


def texts(figure) -> list[str]:
    return [t.get_text() for t in figure.texts] + [t.get_text() for ax in figure.axes for t in ax.texts]
