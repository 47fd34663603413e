"""The workflow with work shared out over jobs: which jobs there are, and that nothing internal gets out by them."""

import pytest
from checkout import TOY, Job, dry_run
from leaks import leaks, loose


def planned(fresh, tmp_path, text: str) -> list[Job]:
    (tmp_path / "scatter.yaml").write_text(text)
    return dry_run(fresh, "--printshellcmds", *TOY, str(tmp_path / "scatter.yaml"))


def test_each_share_is_a_job_that_one_joins_and_no_file_leaves_by_it(fresh, tmp_path):
    jobs = planned(fresh, tmp_path, "sample: {num_shards: 3}\nquality: {num_shards: 2}\n")
    count = {rule: sum(job.rule == rule for job in jobs) for rule in ("sample_part", "sample", "features_part")}
    assert count == {"sample_part": 6, "sample": 2, "features_part": 2}  # of two releases, of one network
    made = {path for job in jobs if job.rule.endswith("_part") for path in job.output}
    joined = [job for job in jobs if made & {*job.input}]
    assert {job.rule for job in joined} == {"sample", "features_real"}
    assert made == {path for job in joined for path in job.input} & made and len(made) == 6 * 2 + 2 * 4
    assert leaks(jobs) == set() and loose(jobs) == set()
    assert all("/internal/" in path for job in jobs if job.rule == "features_part" for path in job.output)


@pytest.mark.slow
def test_the_number_of_shares_is_in_no_command_but_their_own(fresh, tmp_path):
    one, more = (planned(fresh, tmp_path, text) for text in ("run: {seeds: [0]}", "sample: {num_shards: 3}"))
    assert {job.rule for job in one}.isdisjoint({"sample_part", "features_part"})
    assert not [job for job in more if job.rule != "sample_part" and "num_shards" in job.command]
