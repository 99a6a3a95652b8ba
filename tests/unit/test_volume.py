"""A volume: pieces are whole or ignored, the newer replaces the older once it was read back; the mount is spared."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from ftapp.contract import events as ev
from ftapp.contract.errors import JobError, StorageError
from ftapp.contract.publication import PublishConfig
from ftapp.people import VISITOR
from ftapp.processes.child import identify
from ftapp.processes.keeper import Keeper
from ftapp.settings import read_settings
from ftapp.store.checkpoints import is_whole, last_whole
from ftapp.store.jobs import Job
from ftapp.store.pieces import TRAILER, is_intact, trailer_of, unpack, write_piece
from ftapp.store.volume import Item, fingerprint, mark_deleted
from ftapp.studio import Studio
from ftapp.ui.notices import shown
from tests.running import config_for, end, write_rows
from tests.unit.test_jobs import tell

ROOT = Path(__file__).parents[2]


def quiet() -> None:
    """No progress."""


def always() -> bool:
    return True


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, str]]:
    found = []
    for name, size in {"a.json": 3, "deep/b.bin": 3 * 2**20 + 7, "empty": 0}.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789 + size))
        found.append((path, name))
    return found


def test_a_piece_brings_back_bytes_and_times_and_is_a_plain_tar(files: list[tuple[Path, str]], tmp_path: Path) -> None:
    piece = tmp_path / "x.tar"
    write_piece(piece, files, quiet)
    unpack(piece, tmp_path / "back", quiet)
    back = [(tmp_path / "back" / name, name) for _, name in files]
    assert [path.read_bytes() for path, _ in back] == [path.read_bytes() for path, _ in files]
    assert fingerprint(back) == fingerprint(files)
    with tarfile.open(piece) as tar:
        assert tar.getnames() == [name for _, name in files]


@pytest.mark.parametrize("left", [0, 1, TRAILER - 1, TRAILER, 2**20, -TRAILER, -1])
def test_a_torn_piece_is_recognised_wherever_it_was_cut(
    files: list[tuple[Path, str]], tmp_path: Path, left: int
) -> None:
    piece = tmp_path / "x.tar"
    write_piece(piece, files, quiet)
    whole = piece.read_bytes()
    piece.write_bytes(whole[:left])
    assert trailer_of(piece) is None
    assert not is_intact(piece, quiet)
    with pytest.raises(StorageError, match="not written whole"):
        unpack(piece, tmp_path / "back", quiet)
    piece.write_bytes(whole[:1000] + whole[-TRAILER:])
    assert trailer_of(piece) is None


def test_a_changed_byte_and_a_name_that_leads_out_are_refused(files: list[tuple[Path, str]], tmp_path: Path) -> None:
    piece = tmp_path / "x.tar"
    write_piece(piece, files, quiet)
    data = bytearray(piece.read_bytes())
    data[2**20] ^= 1
    piece.write_bytes(data)
    assert trailer_of(piece)
    assert not is_intact(piece, quiet)
    with pytest.raises(StorageError, match="checksum"):
        unpack(piece, tmp_path / "back", quiet)
    for name in ("../out", "/tmp/out", "a/../../out"):
        bad = tmp_path / "bad.tar"
        bad.unlink(missing_ok=True)
        write_piece(bad, [(files[0][0], name)], quiet)
        with pytest.raises(StorageError, match="no plain file"):
            unpack(bad, tmp_path / "inside", quiet)
    assert not (tmp_path / "out").exists()


def test_a_new_piece_replaces_the_older_ones_when_it_is_whole(files: list[tuple[Path, str]], tmp_path: Path) -> None:
    item = Item(tmp_path / "item")
    item.put("result", "0" * 16, files, quiet, always)
    [first] = item.folder.iterdir()

    def give_up() -> None:
        if len(list(item.folder.iterdir())) == 2 and max(path.stat().st_size for path in item.folder.iterdir()) > 0:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        item.put("result", "1" * 16, files, give_up, always)
    with pytest.raises(FileNotFoundError):
        item.put("result", "1" * 16, files, quiet, lambda: False)
    assert list(item.folder.iterdir()) == [first]
    assert item.has("result", "0" * 16)
    torn = item.folder / "result.00000009.2222222222222222.tar"
    torn.write_bytes(first.read_bytes()[:-5])
    item = Item(item.folder)
    assert item.has("result", "0" * 16), "a torn one counts for nothing"
    item.put("result", "3" * 16, files, quiet, always)
    assert [path.name for path in item.folder.iterdir()] == ["result.00000010.3333333333333333.tar"]


def test_an_older_piece_stands_in_for_a_damaged_one(files: list[tuple[Path, str]], tmp_path: Path) -> None:
    folder = tmp_path / "item"
    folder.mkdir()
    for number in (1, 2):
        write_piece(folder / f"result.{number:08}.{str(number) * 16}.tar", files[: 2 + (number == 1)], quiet)
    data = bytearray((folder / f"result.00000002.{'2' * 16}.tar").read_bytes())
    data[-TRAILER - 2] ^= 1
    (folder / f"result.00000002.{'2' * 16}.tar").write_bytes(data)
    Item(folder).take_back("result", tmp_path / "back", quiet)
    assert {path.name for path in (tmp_path / "back").iterdir()} == {"a.json", "deep", "empty"}
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[: -TRAILER - 1] + b"x" + path.read_bytes()[-TRAILER:])
    with pytest.raises(StorageError, match="damaged"):
        Item(folder).take_back("result", tmp_path / "again", quiet)
    assert list((tmp_path / "again").iterdir()) == []


# The keeper, over runs that only look like some


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def here(home: Path, mount: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    monkeypatch.setenv("FTAPP_VOLUME", str(mount))
    return Studio(read_settings())


@pytest.fixture
def run(here: Studio, tmp_path: Path) -> Job:
    """A lost run on a dataset of its own, with two checkpoints."""
    job = end(here._jobs.create(config_for(here, tmp_path / "no-model", tmp_path / "rows")))
    for step in (1, 2):
        write_checkpoint(job, step)
    return job


def write_checkpoint(job: Job, step: int) -> Path:
    folder = job.folder / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("optimizer.pt", "scheduler.pt"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data", os.urandom(1000))
    save_file({"a": numpy.zeros(100)}, folder / "adapter_model.safetensors")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    return folder


def keeper(here: Studio, mount: Path) -> Keeper:
    return Keeper(here.settings.home, mount, here.scheduler)


def kept(mount: Path) -> list[str]:
    """The parts that are on the volume; a part twice if there are two pieces of it."""
    return sorted(path.name.split(".")[0] for path in mount.rglob("*.tar"))


def wipe(home: Path) -> None:
    shutil.rmtree(home)
    home.mkdir()


def test_what_is_finished_is_kept_once_and_comes_back_on_an_empty_disk(
    here: Studio, home: Path, mount: Path, run: Job
) -> None:
    here.describe_run(run.name, title="Sums")
    inner = here._jobs.create_publication(run, PublishConfig(run=run.name, artifact="merged"))
    end(inner, ev.Finished(artifact="merged"))
    (inner.folder / "merged").mkdir()
    (inner.folder / "merged" / "model.safetensors").write_bytes(b"large")
    waiting = here._jobs.create(run.run_config())
    assert keeper(here, mount).keep()
    assert kept(mount) == sorted(["dataset", "record", "record", "publication-1", "checkpoint-1", "checkpoint-2"])
    before = {path: path.stat().st_mtime_ns for path in mount.rglob("*.tar")}
    assert keeper(here, mount).keep(), "another process that finds the disk as it was"
    assert {path: path.stat().st_mtime_ns for path in mount.rglob("*.tar")} == before
    row, config = here.history("sums")[-1], run.run_config()
    dataset = here.dataset(config.data.dataset)

    wipe(home)
    again = Studio(here.settings)
    assert again.history() == []
    one = keeper(again, mount)
    assert one.take_back()
    assert again.notices() == []
    assert {found.name for found in again.history()} == {run.name, waiting.name}
    back = next(found for found in again.history() if found.name == run.name)
    assert back == row
    assert (back.status, back.title) == ("lost", "Sums")
    assert again.dataset(config.data.dataset) == dataset
    assert [view.status for view in again.publications(run.name)] == ["finished"]
    with pytest.raises(JobError, match="nothing to download"):
        again.artifact_folder(run.name, "1")
    assert {found.status for found in again.history()} == {"lost", "queued"}, "what waited waits again"
    assert one.keep()
    assert {path: path.stat().st_mtime_ns for path in mount.rglob("*.tar")} == before, "nothing was new"
    assert not [path for path in home.rglob("*") if path.name.endswith((".back", ".new")) or ".keeping" in path.name]


def test_of_a_run_at_work_the_record_is_kept_with_each_whole_checkpoint(here: Studio, mount: Path, run: Job) -> None:
    me = identify(os.getpid())
    run.record_process(me)
    one = keeper(here, mount)
    assert one.keep()
    assert not one.kept, "it is still at work"
    first = next(mount.rglob("record.*.tar"))
    tell(run, ev.Note(message="more"))
    assert one.keep()
    assert next(mount.rglob("record.*.tar")) == first
    half = write_checkpoint(run, 3)
    (half / "optimizer.pt").write_bytes((half / "optimizer.pt").read_bytes()[:-3])
    assert one.keep()
    assert next(mount.rglob("record.*.tar")) == first, "a checkpoint that is not whole is none"
    shutil.rmtree(half)
    write_checkpoint(run, 3)
    shutil.rmtree(run.folder / "checkpoints" / "checkpoint-1")
    assert one.keep()
    assert kept(mount) == ["checkpoint-2", "checkpoint-3", "dataset", "record"]
    assert next(mount.rglob("record.*.tar")) != first
    shutil.rmtree(run.folder / "checkpoints")
    assert one.keep()
    assert kept(mount) == ["checkpoint-2", "checkpoint-3", "dataset", "record"], "there is none that is newer"


def test_a_checkpoint_that_the_trainer_takes_away_meanwhile_is_kept_whole(
    here: Studio, mount: Path, run: Job, home: Path
) -> None:
    one, gone = keeper(here, mount), run.folder / "checkpoints" / "checkpoint-2"

    def pulse() -> None:
        if list(mount.rglob("checkpoint-2.*.tar")):
            shutil.rmtree(gone, ignore_errors=True)

    one._pulse = pulse  # type: ignore[method-assign]
    assert one.keep()
    assert not gone.exists()
    wipe(home)
    again = Studio(here.settings)
    assert keeper(again, mount).take_back()
    assert is_whole(gone)


def test_what_was_deleted_is_deleted_there_and_what_is_only_missing_is_not(
    here: Studio, home: Path, mount: Path, run: Job
) -> None:
    dataset, other = run.run_config().data.dataset, end(here._jobs.create(run.run_config()))
    one = keeper(here, mount)
    assert one.keep()
    here.delete_run(run.name)
    shutil.rmtree(other.folder)  # by hand
    assert one.keep()
    assert kept(mount) == ["dataset", "record"]
    assert not (mount / "ftapp" / "local" / "runs" / run.name).exists()
    here.delete_dataset(dataset)
    rows = write_rows(home / "sums.jsonl")
    assert here.add_dataset(rows, "sums.jsonl").id == dataset, "the same again before the keeper saw that it went"
    assert one.keep()
    assert kept(mount) == ["dataset", "record"]
    here.delete_dataset(dataset)
    assert one.keep()
    assert kept(mount) == ["record"]
    assert keeper(here, mount).take_back()
    assert [row.name for row in here.history()] == [other.name]
    mark_deleted(home / "local", "runs", other.name)
    assert one.keep(), "a look between the mark and the deletion"
    shutil.rmtree(other.folder)
    assert one.keep()
    assert kept(mount) == []


def test_a_killed_keeper_leaves_nothing_that_counts_and_the_next_one_goes_on(
    here: Studio, home: Path, mount: Path, run: Job
) -> None:
    write_checkpoint(run, 3)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom ftapp.processes.keeper import Keeper\n"
        "from ftapp.settings import read_settings\nfrom ftapp.studio import Studio\n"
        "home, mount = map(Path, sys.argv[1:3])\n"
        "keeper, left = Keeper(home, mount, Studio(read_settings()).scheduler), int(sys.argv[3])\n"
        "def pulse():\n    global left\n    left -= 1\n    left or os._exit(9)\n"
        "keeper._pulse = pulse\nkeeper.keep()\n"
    )
    for blocks in (1, 30, 20):
        done = subprocess.run([sys.executable, "-c", script, home, mount, str(blocks)], cwd=ROOT)
        assert done.returncode == 9
    assert [path for path in mount.rglob("*.tar") if trailer_of(path) is None], "one of them was cut"
    assert list(home.glob(".keeping-*"))
    assert keeper(here, mount).keep()
    assert kept(mount) == ["checkpoint-1", "checkpoint-2", "checkpoint-3", "dataset", "record"]
    assert not list(home.glob(".keeping-*"))
    wipe(home)
    again = Studio(here.settings)
    assert keeper(again, mount).take_back()
    assert last_whole(run.folder / "checkpoints") == run.folder / "checkpoints" / "checkpoint-3"


def test_damage_on_the_volume_costs_no_more_than_what_is_damaged(
    here: Studio, home: Path, mount: Path, run: Job, caplog: pytest.LogCaptureFixture
) -> None:
    other = end(here._jobs.create(run.run_config()))
    assert keeper(here, mount).keep()
    for path in [next(mount.rglob("checkpoint-2.*.tar")), next((mount / "ftapp/local/runs" / other.name).iterdir())]:
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        path.write_bytes(data)
    next(mount.rglob("checkpoint-1.*.tar")).with_name("something else").write_bytes(b"not ours")
    wipe(home)
    again = Studio(here.settings)
    one = keeper(again, mount)
    assert one.take_back()
    assert [row.name for row in again.history()] == [run.name]
    assert last_whole(run.folder / "checkpoints") == run.folder / "checkpoints" / "checkpoint-1"
    assert again.notices() == ["2 pieces of datasets and runs could not be taken back: the log says which and why."]
    assert f"checkpoint-2 of {run.name} (local)" in caplog.text
    assert f"{other.name} (local)" in caplog.text
    assert one.keep()
    assert other.name in {path.parent.name for path in mount.rglob("record.*.tar")}, "it is not given up"


def test_a_full_volume_is_told_and_what_is_smaller_is_kept(
    here: Studio, home: Path, tmp_path: Path, run: Job, caplog: pytest.LogCaptureFixture
) -> None:
    (run.folder / "checkpoints" / "checkpoint-2" / "rng_state.bin").write_bytes(os.urandom(2**20))
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", small], stderr=subprocess.DEVNULL)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    one = keeper(here, small)
    try:
        if mounted.returncode:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        for _ in range(3):
            assert not one.keep()
            assert not one.kept
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        [notice] = here.notices()
        assert f"{small} does not take what is new: " in notice
        assert caplog.text.count("does not take what is new") == 1
        assert "does not take what is new" in shown(here), "it stands on the page"
        assert shown(Studio(here.settings, VISITOR)) == ""
        assert kept(small) == ["dataset", "record"], "nothing half written is left, either"
        if not mounted.returncode:
            subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        assert one.keep()
        assert one.kept
        assert kept(small) == ["checkpoint-1", "checkpoint-2", "dataset", "record"]
        assert here.notices() == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if not mounted.returncode:
            subprocess.run(["umount", small], check=True)


def test_a_volume_that_is_not_there_is_told_and_taken_when_it_comes(here: Studio, home: Path, mount: Path) -> None:
    mount.rmdir()
    one = keeper(here, mount)
    home.mkdir(exist_ok=True)
    assert not one.take_back()
    assert not one.keep()
    [notice] = here.notices()
    assert str(mount) in notice
    mount.mkdir()
    assert one.take_back()
    assert here.notices() == []


def test_nothing_on_the_mount_is_ever_written_but_in_one_go(here: Studio, mount: Path, run: Job) -> None:
    """Opened anew, written from start to end, closed: all that an append-only mount can do."""
    script = (
        "import os, sys\nfrom pathlib import Path\nmount = sys.argv[2]\n"
        "def look(event, arguments):\n"
        "    path = os.fspath(arguments[0]) if arguments and isinstance(arguments[0], (str, os.PathLike)) else ''\n"
        "    if str(path).startswith(mount):\n"
        "        bad = event in ('os.rename', 'os.truncate', 'os.link', 'os.utime', 'os.symlink')\n"
        "        flags = arguments[2] if event == 'open' else 0\n"
        "        writes = event == 'open' and flags & (os.O_WRONLY | os.O_RDWR)\n"
        "        if bad or (writes and not (flags & os.O_EXCL and not flags & os.O_RDWR)):\n"
        "            os.write(2, f'{event} {arguments}'.encode()); os._exit(3)\n"
        "sys.addaudithook(look)\n"
        "from ftapp.processes.keeper import Keeper\nfrom ftapp.settings import read_settings\n"
        "from ftapp.studio import Studio\n"
        "scheduler = Studio(read_settings()).scheduler\n"
        "assert Keeper(Path(sys.argv[1]), Path(mount), scheduler).keep()\n"
    )
    for step in (3, 4):
        write_checkpoint(run, step)
        shutil.rmtree(run.folder / "checkpoints" / f"checkpoint-{step - 2}")
        done = subprocess.run([sys.executable, "-c", script, here.settings.home, mount], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert kept(mount) == ["checkpoint-3", "checkpoint-4", "dataset", "record"]


def test_what_an_account_left_is_not_given_to_another_one_of_its_name(
    here: Studio, home: Path, mount: Path, run: Job
) -> None:
    account = home / "local" / "account"
    account.write_text("id-1")
    assert keeper(here, mount).keep()
    before = sorted(mount.rglob("*.tar"))
    wipe(home)
    account.parent.mkdir()
    account.write_text("id-2")  # signed in before anything was taken back
    again = Studio(here.settings)
    one = keeper(again, mount)
    assert one.take_back()
    assert again.history() == []
    assert again.datasets()
    assert one.keep()
    assert sorted(mount.rglob("*.tar")) == before, "nothing of the other's is written over"
    wipe(home)
    again = Studio(here.settings)
    assert keeper(again, mount).take_back()
    assert account.read_text() == "id-1"
    assert [row.name for row in again.history()] == [run.name]
