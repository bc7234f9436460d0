"""Does the trainer start, on these data, this model and this device?"""

import tempfile
from pathlib import Path

import trio

from folkmoot.node.doctor.finding import Case, Finding, ok, problem
from folkmoot.node.opening import training_task
from folkmoot.node.train.source import locate_source
from folkmoot.node.trainer import TrainerProcess

START_SECONDS = 60.0


def check_trainer(case: Case) -> Finding:
    """Starts one beside, unless a node runs and has its own. Raises `FolkmootError`."""
    if case.status is not None:
        is_there = case.status.trainer_peak_rss_mb > 0
        return (
            ok("trainer", "the node has one")
            if is_there
            else problem("trainer", "none runs", "see logs/trainer.log")
        )
    source = locate_source(case.charter.model, case.home.resolve(case.config.trainer.path))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "trainer.log")
        trainer = TrainerProcess(
            training_task(case.home, case.config, case.charter, source),
            log,
            case.config.trainer.command,
            start_timeout=START_SECONDS,
        )
        started = trio.run(_start, trainer)
        words = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    if not started:
        return problem(
            "trainer", f"does not start: {words[-1] if words else 'it says nothing'}", "see trainer.command"
        )
    return ok("trainer", f"starts (device {case.config.trainer.device})")


async def _start(trainer: TrainerProcess) -> bool:
    async with trainer:
        await trainer.check_start()
        return trainer.pid is not None
