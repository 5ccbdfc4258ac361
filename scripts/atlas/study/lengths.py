"""One task over several numbers of members shown: a task of its own for each."""

from typing import Any

from atlas.core.errors import StudyError


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in which a task with a list as `shown` is one task for each number, NAME_of_3 and so on.

    They stand in its place in `study.tasks` and `study.transfer_tasks`, and beside it in `tasks`, where other keys may
    name it. Raises StudyError where the names are taken, or where the list stands in `prompts`. A configuration that
    was resolved stays as it is.
    """
    if isinstance(config["prompts"]["shown"], list):
        raise StudyError(f"prompts.shown: {config['prompts']['shown']} is a list; give one number, and lists in tasks")
    found: dict[str, list[str]] = {}
    tasks = dict(config["tasks"])
    for name in [*config["study"]["tasks"], *config["study"]["transfer_tasks"]]:
        shown = config["tasks"].get(name, {}).get("shown")
        if not isinstance(shown, list):
            continue
        found[name] = [f"{name}_of_{n}" for n in shown]
        taken = next((own for own in found[name] if own in tasks), None)
        if taken:
            raise StudyError(
                f"tasks.{name}.shown: its tasks are named as {taken!r} is, which is there; rename that one"
            )
        if len(name) + len("_of_100") > 60:
            raise StudyError(f"tasks.{name}: names of tasks with a list as `shown` have 53 letters at most; shorten it")
        tasks |= {own: config["tasks"][name] | {"shown": n} for own, n in zip(found[name], shown, strict=True)}
    study = config["study"] | {
        key: [own for name in config["study"][key] for own in found.get(name, [name])]
        for key in ("tasks", "transfer_tasks")
    }
    return config | {"study": study, "tasks": tasks}
