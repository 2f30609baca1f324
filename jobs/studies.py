"""The studies' jobs as ready-made scripts in `jobs/`: `python -m jobs.studies` writes them, and a test holds them to that.

They are submitted from the project's folder as they are (`sbatch --account=NAME jobs/run_cpt_patok.sbatch`,
`qsub -J 1-20 jobs/preprocess_data_patok.pbs`); Slurm hands what follows the script to the command, so settings can be changed there.
Variables of `jobs.render.OPEN` that are set on submission win over a script's own values.
"""

from __future__ import annotations

from pathlib import Path

from jobs.job import Job
from jobs.render import SUFFIXES, Container, Place, render
from jobs.site import load_site

HERE = Path(__file__).resolve().parent
LOGS = "jobs/logs"  # there in a fresh checkout: a job whose log has no folder dies without a word
SITES = {"slurm": "nibi", "pbs": "pbs-enroot"}
IMAGES = {"slurm": "containers/sibol.sif", "pbs": "containers/sibol.sqsh"}
SHARDS = 20
HOURS = 3600
PLUGINS = ("vanilla", "stochastok", "patok")


def study_jobs() -> list[Job]:
    """The jobs of all studies, for nodes of 8 GPUs."""
    jobs = [job for plugin in PLUGINS for job in tokenization_jobs(plugin)]
    return [
        *jobs,
        _train("train_stochastok_47m", "stochastok_47m", "data/openwebtext", gpus=8, walltime_s=12 * HOURS),
        _train("train_course_100m", "course_100m", "data/course", gpus=1, walltime_s=24 * HOURS),
        _train("train_survey_14b", "survey_14b_pretraining", "data/survey", "model.init_from=models/Qwen2.5-14B", max_hops=5),
        _train(
            "train_early_modern_72b", "early_modern_72b", "data/early_modern", "model.init_from=models/Qwen2.5-72B", nodes=4, max_hops=20
        ),
    ]


def tokenization_jobs(plugin: str) -> list[Job]:
    """One arm of the Filipino study: prepare in shards, merge, continue pretraining."""
    data = f"data/filipino_{plugin}"
    prepare = ("sibol", "data", "prepare", "data/filipino.jsonl", "--tokenizer", "models/gemma-3-1b-pt", "--plugin", plugin)
    return [
        Job(f"preprocess_data_{plugin}", (*prepare, "--out", data, "--workers", "16"), 6 * HOURS, shards=SHARDS),
        Job(f"merge_data_{plugin}", ("sibol", "data", "merge", data), 2 * HOURS),
        _train(
            f"run_cpt_{plugin}",
            "continue_pretraining",
            data,
            "model.family=gemma3",
            "model.init_from=models/gemma-3-1b-pt",
            f"data.plugin={plugin}",
            max_hops=5,
        ),
    ]


def _train(
    name: str,
    recipe: str,
    data: str,
    *overrides: str,
    nodes: int = 1,
    gpus: int = 8,
    walltime_s: int = 24 * HOURS,
    max_hops: int | None = None,
) -> Job:
    run_dir = f"runs/{name.partition('_')[2]}"
    command = ("sibol", "train", recipe, f"name={name}", f"output_dir={run_dir}", f"data.path={data}", *overrides)
    return Job(name, command, walltime_s, nodes=nodes, gpus_per_node=gpus, ranks_per_node=gpus, run_dir=run_dir, max_hops=max_hops)


def ready_made() -> dict[str, str]:
    """Text of every script by file name."""
    texts = {}
    for scheduler, site_name in SITES.items():
        site = load_site(site_name)
        container = Container(site.runtime, IMAGES[scheduler])
        for job in study_jobs():
            name = f"{job.name}{SUFFIXES[scheduler]}"
            texts[name] = render(job, site, Place(f"jobs/{name}", LOGS), container)
    return texts


def main() -> None:
    """Write all scripts, and remove those of studies that are no more."""
    texts = ready_made()
    for path in (path for suffix in (".sbatch", ".pbs") for path in HERE.glob(f"*{suffix}")):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
