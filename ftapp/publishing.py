"""The verbs on publications: whose token it is, what stands at a destination, the card, publish, follow, download."""

from collections.abc import Iterator
from pathlib import Path

from ftapp.card import card_of, check_card
from ftapp.contract.config import FullConfig
from ftapp.contract.elsewhere import short_name
from ftapp.contract.errors import HubError, HubUnreachable, JobError, LimitReached, NotAllowed
from ftapp.contract.events import Finished
from ftapp.contract.publication import PublishConfig
from ftapp.contract.refusals import refusal
from ftapp.evaluations import Evaluations
from ftapp.hub import Account, Hub
from ftapp.people import acts, in_turn
from ftapp.processes.child import alive
from ftapp.processes.launch import launch
from ftapp.store import artifacts
from ftapp.store.archives import zipped
from ftapp.store.jobs import Job
from ftapp.views import PublicationView

SETTINGS = "https://huggingface.co/settings/tokens"


class Publishing(Evaluations):
    """The results that one user can publish."""

    @acts
    def whoami(self, token: str | None = None) -> Account:
        """Whose token this is, or the environment's; raises HubError."""
        return Hub(self._token(token)).whoami()

    @acts
    def check_destination(self, config: PublishConfig, token: str | None = None) -> str:
        """What pushing there would do, in a sentence; raises HubError where it would fail, JobError if it is no use."""
        if not config.destination:
            return "It stays on this machine."
        self._check_base(config)
        hub = Hub(self._token(token))
        account, name, pull = hub.whoami(), config.destination, config.mode == "pull_request"
        if not account.can_write:
            raise HubError(f"The token of {account.name} can only read.", f"Make one with write access at {SETTINGS}.")
        owner = name.split("/")[0]
        if not pull and not {owner, name} & set(account.owners):
            raise HubError(
                f"The token belongs to {account.name}, who cannot write to {owner}.",
                f"Use {account.name}/{name.split('/')[1]}, or open a pull request.",
            )
        there = hub.repository(name)
        self._check_licence(config, hub)
        if there is None:
            if pull:
                raise HubError(f"There is no {name} to open a pull request to.", "Push a commit: that makes it.")
            return f"{name} is free: a {'private' if config.private else 'public'} repository will be made."
        if config.private and not there.private:
            raise HubError(f"{name} exists and is public.", "Choose another name, or allow a public destination.")
        if not pull and not there.writable:
            raise HubError(f"{account.name} cannot write to {name}.", "Choose another name, or open a pull request.")
        kind = "private" if there.private else "public"
        doing = {
            "commit": "a commit is added on main, what is there now stays in its history",
            "branch": f"a commit is added on the branch {config.branch}",
            "pull_request": "a pull request is opened",
        }
        return f"{name} exists and is {kind}: {doing[config.mode]}."

    def _check_base(self, config: PublishConfig) -> None:
        model = self.run(config.run).config.model
        if config.artifact == "adapter" and not model.on_hub and not config.with_base:
            raise JobError(
                f"The base {model.public_name} is not on the Hub: the adapter alone could be used by nobody.",
                "Publish the merged model, or put the base beside the adapter.",
            )

    def _check_licence(self, config: PublishConfig, hub: Hub) -> None:
        """A gated base's licence must have been accepted by whoever publishes what was made from it."""
        model = self.run(config.run).config.model
        if not model.on_hub:
            return
        try:
            accepted = hub.model_files(model.id, model.revision).accessible
        except HubUnreachable:
            raise
        except HubError:
            return  # it is gone, or hidden: the files here do
        if not accepted:
            raise HubError(
                f"{model.id} is gated, and its licence was not accepted by this token's account.",
                f"Open https://huggingface.co/{model.id}, accept, and publish again.",
            )

    def card(self, config: PublishConfig) -> str:
        """The model card as it would be published; what a check will find has its place in it. Raises JobError."""
        run = self._jobs.get(config.run)
        made = self._whole(run, config)
        return card_of(run, config, made[1].verified if made else None)

    def _whole(self, run: Job, config: PublishConfig) -> tuple[Path, artifacts.Artifact] | None:
        """What an earlier publication made, if it would do for this one."""
        folders = [job.folder for job in self._jobs.publications(run)]
        return artifacts.find(folders, config, artifacts.source_of(run.folder))

    @acts
    @in_turn
    def publish(self, config: PublishConfig, token: str | None = None) -> str:
        """Start a publication of a run's result, all that can be checked first; returns its number.

        Raises JobError, HubError, and ConfigError for a card that the Hub could not read.
        """
        run = self._jobs.get(config.run)
        view = self.run(config.run)
        method = view.config.method
        self._refuse_full()
        if self.person.shared and config.folder:
            raise NotAllowed("A folder on this machine cannot be written to: it is shared.", "Leave it empty.")
        if not view.has_result:
            raise JobError(f"{config.run} has no trained model yet.", "Wait for it to finish, or choose another run.")
        if config.artifact == "adapter" and isinstance(method, FullConfig):
            raise JobError(f"{config.run} trained the whole model, so it has no adapter.", "Publish the merged model.")
        if config.artifact == "gguf" and not self.settings.llama_cpp:
            raise JobError(
                "GGUF files are made by llama.cpp, and FTAPP_LLAMA_CPP names none.",
                "Set it to the folder of a llama.cpp; or publish the merged model and use the commands shown there.",
            )
        if any(publication.active for publication in self.publications(config.run)):
            raise JobError(f"{config.run} is being published already.", "Wait for that to end, or stop it.")
        token = self._token(token)
        if self.person.shared and (busy := self._publishing()):
            raise LimitReached(
                f"{busy} is being published: one at a time is allowed here.", "Wait for that to end, or stop it."
            )
        if config.card:
            check_card(config.card)
            if token and token in config.card:
                raise refusal({"card": "holds the Hub token; take it out"})
        self.check_destination(config, token)
        job = self._jobs.create_publication(run, config)
        launch(job, "publish", token)
        return job.name

    @acts
    def publish_again(self, run: str, number: str, token: str | None = None) -> str:
        """Publish once more as an earlier publication did, what it made is used again; returns the new number."""
        view = self.publication(run, number)
        if view.active:
            raise JobError(f"Publication {number} of {run} is still at work.", "Wait for it to end, or stop it.")
        return self.publish(view.config, token)

    def publications(self, run: str) -> list[PublicationView]:
        """A run's publications, newest first."""
        return [self._publication_view(job) for job in self._jobs.publications(self._jobs.get(run))]

    def publication(self, run: str, number: str) -> PublicationView:
        """One publication; raises JobError."""
        return self._publication_view(self._publication_job(self._jobs.get(run), number))

    def artifact_folder(self, run: str, number: str) -> Path:
        """Where what a publication made, or used, lies; raises JobError if it has none, or it was taken away."""
        view, job = self.publication(run, number), self._jobs.get(run)
        if isinstance(view.end, Finished) and (folder := (view.folder / view.end.artifact).resolve()).is_dir():
            return folder
        if not view.active and (found := self._whole(job, view.config)):
            return found[0]
        raise JobError(f"Publication {number} of {run} has nothing to download.", "Publish again.")

    def archive(self, run: str, number: str) -> tuple[str, Iterator[bytes]]:
        """A publication's artifact as a zip: its file name, and its bytes as they are read. Raises JobError."""
        folder = self.artifact_folder(run, number)
        name = f"{short_name(self.publication(run, number).config)}-{folder.name}"
        return f"{name}.zip", zipped(folder, name)

    def _publishing(self) -> str:
        """The name of a run that is being published right now; empty if none is."""
        jobs = (job for run, _ in self._runs.all() for job in self._jobs.publications(run))
        return next((job.folder.parents[1].name for job in jobs if self._publication_view(job).active), "")

    def _token(self, token: str | None) -> str | None:
        return (token or "").strip() or self.settings.hub_token

    def _publication_view(self, job: Job) -> PublicationView:
        status = job.status(alive(job.process()))
        return self._view(job, job.publish_config, job.created.timestamp(), status, job.state.end)
