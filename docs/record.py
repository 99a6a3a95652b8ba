"""Records the run that visitors of a shared machine see: the demo, trained and evaluated. Run it with `make record`."""

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "ftapp" / "demo" / "runs" / "demo"
KEPT = ("config.json", "dataset.json", "events.jsonl", "report.json", "answers.jsonl")
"""Of a job's folder: what is shown, and nothing of this machine."""


def main() -> None:
    """Train and evaluate as the page does, and keep what was said."""
    sys.path.insert(0, str(ROOT))
    from ftapp.settings import read_settings
    from ftapp.studio import Studio

    with tempfile.TemporaryDirectory() as home:
        studio = Studio(replace(read_settings(), home=Path(home), hub_token=None))
        run = studio.start_training(studio.demo_config())
        while studio.run(run).active:
            time.sleep(1)
        number = studio.evaluate(studio.evaluation_config(run))
        while studio.evaluation(run, number).active:
            studio.scheduler.tick()
            time.sleep(1)
        view, evaluation = studio.run(run), studio.evaluation(run, number)
        if view.status != "finished" or evaluation.status != "finished":
            raise SystemExit(f"{view.message} {evaluation.message}")
        shutil.rmtree(RECORDED, ignore_errors=True)
        for job, folder in ((view.folder, RECORDED), (evaluation.folder, RECORDED / "evaluations" / "1")):
            folder.mkdir(parents=True)
            for name in KEPT:
                if (job / name).is_file():
                    text = (job / name).read_text(encoding="utf-8").replace(run, RECORDED.name)
                    (folder / name).write_text(text, encoding="utf-8")
    if home in "".join(path.read_text(encoding="utf-8") for path in RECORDED.rglob("*") if path.is_file()):
        raise SystemExit(f"A path of this machine is in {RECORDED}.")


if __name__ == "__main__":
    main()
