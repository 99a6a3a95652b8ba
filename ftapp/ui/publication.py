"""A publication as it stands, in HTML: what was checked, where it is, how to use it elsewhere."""

import os
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

from ftapp.contract.elsewhere import with_ollama, with_vllm
from ftapp.contract.errors import JobError
from ftapp.contract.events import Finished
from ftapp.studio import Studio
from ftapp.ui import markup, status
from ftapp.views import PublicationView

KEPT = {"adapter": "Adapter", "merged": "Merged model", "gguf": "GGUF file"}


def head(view: PublicationView) -> str:
    """Status, progress, notes."""
    plain = isinstance(view.state.end, Finished) and not view.unreadable
    return status.headline(view, told=not plain) + status.phase_bar(view) + status.notes(view)


def checked(view: PublicationView) -> str:
    """What the check of the merged model found."""
    found = view.state.verified
    if found is None:
        return ""
    title = "Checked: it says what was trained" if found.passed else "The check failed"
    whose = "held-out rows" if found.held_out else "rows"
    pairs = [
        ("Same likeliest token", f"{100 * found.top1:.2f} %"),
        ("Divergence, nats a token", f"{found.divergence:.2g}"),
        ("The same, base from tuned", f"{found.change:.2g}"),
        ("Same greedy answers", f"{found.same_answers} of {found.answers}"),
    ]
    about = (
        f"The merged model, read back from its files, against base + adapter: {found.positions} tokens of answers in "
        f"{found.rows} {whose}, in {found.precision}."
    )
    level = "success" if found.passed else "error"
    problems = "".join(markup.notice("error", problem) for problem in found.problems)
    return markup.notice(level, title, about) + markup.facts(pairs) + problems


def result(studio: Studio, view: PublicationView) -> str:
    """Where it is: the link, the folder, the download; then how to use it elsewhere."""
    if view.unreadable:
        return ""
    try:
        folder = studio.artifact_folder(view.config.run, view.name)
    except JobError:
        return f"<p class='ft-small'>{markup.text(what(view))}</p>"
    end = view.state.end
    shown = (
        f"<p id='publish-link'>On the Hub: {markup.link(end.url)}</p>" if isinstance(end, Finished) and end.url else ""
    )
    bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    address = f"artifacts/{quote(view.config.run)}/{quote(view.name)}.zip"
    shown += f"<p>On this machine: <code>{markup.text(folder)}</code></p>"
    shown += (
        f"<p><a class='ft-download' id='publish-zip' href='{address}' download>Download as a zip</a> "
        f"({markup.size(bytes)})</p>"
    )
    return shown + _elsewhere(studio, view, str(folder))


def _elsewhere(studio: Studio, view: PublicationView, folder: str) -> str:
    gguf = view.config.artifact == "gguf"
    ways = [] if gguf else [("vLLM", with_vllm(studio.run(view.config.run).config, view.config, folder))]
    if view.config.artifact != "adapter":
        ways.append(
            ("llama.cpp and Ollama" if gguf else "llama.cpp (GGUF) and Ollama", with_ollama(view.config, folder))
        )
    shown = ""
    for name, code in ways:
        if code:
            title = markup.text(name)
            shown += f"<h4 class='section'>{title}</h4>"
            shown += f"<pre class='ft-tail' tabindex='0' aria-label='{title}'>{markup.text(code)}</pre>"
    return f"<details class='ft-ways'><summary>Use it elsewhere</summary>{shown}</details>" if shown else ""


def what(view: PublicationView) -> str:
    """What was published where to, in a few words."""
    if view.unreadable:
        return "?"
    return f"{KEPT[view.config.artifact]} → {view.config.destination or 'this machine'}"


def earlier(views: Sequence[PublicationView]) -> str:
    """The others of this run."""
    if not views:
        return ""
    rows = [
        (f"{datetime.fromtimestamp(view.created):%Y-%m-%d %H:%M}", what(view), status.WORDS[view.status], _where(view))
        for view in views
    ]
    return "<h4>Earlier publications</h4>" + markup.table(("When", "What", "Status", "Where"), rows, "Publications")


def _where(view: PublicationView) -> str:
    end = view.state.end
    return (end.url or os.path.normpath(view.folder / end.artifact)) if isinstance(end, Finished) else view.message
