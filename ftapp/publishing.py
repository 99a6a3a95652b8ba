"""The verbs on publications: whose token it is, publish a run's result, follow that."""

from ftapp.contract.config import FullConfig, PublishConfig
from ftapp.contract.errors import HubError, JobError
from ftapp.evaluations import Evaluations
from ftapp.hub import Account, Hub
from ftapp.processes.child import alive
from ftapp.processes.launch import launch
from ftapp.store.jobs import Job
from ftapp.views import PublicationView


class Publishing(Evaluations):
    """The results that one user can publish."""

    def whoami(self, token: str | None = None) -> Account:
        """Whose token this is, or the environment's; raises HubError."""
        return Hub(token or self.settings.hub_token).whoami()

    def publish(self, config: PublishConfig, token: str | None = None) -> str:
        """Start a publication of a run's result, the token checked before any work; returns its number."""
        run = self._jobs.get(config.run)
        view = self.run(config.run)
        if not view.has_result:
            raise JobError(f"{config.run} has no trained model yet.", "Wait for it to finish, or choose another run.")
        if config.artifact == "adapter" and isinstance(view.config.method, FullConfig):
            raise JobError(f"{config.run} trained the whole model, so it has no adapter.", "Publish the merged model.")
        if any(publication.active for publication in self.publications(config.run)):
            raise JobError(f"{config.run} is being published already.", "Wait for that to end, or stop it.")
        token = (token or "").strip() or self.settings.hub_token
        if config.destination:
            account, owner = Hub(token).whoami(), config.destination.split("/")[0]
            if not account.can_write:
                raise HubError(
                    f"The token of {account.name} can only read.",
                    "Make one with write access at https://huggingface.co/settings/tokens.",
                )
            if owner not in (account.name, *account.organisations):
                raise HubError(
                    f"The token belongs to {account.name}, who cannot write to {owner}.",
                    f"Use {account.name}/{config.destination.split('/')[1]}.",
                )
        job = self._jobs.create_publication(run, config)
        launch(job, "publish", token if config.destination else self.settings.hub_token)
        return job.name

    def publications(self, run: str) -> list[PublicationView]:
        """A run's publications, newest first."""
        return [self._publication_view(job) for job in self._jobs.publications(self._jobs.get(run))]

    def publication(self, run: str, number: str) -> PublicationView:
        """One publication; raises JobError."""
        return self._publication_view(self._publication_job(self._jobs.get(run), number))

    def _publication_view(self, job: Job) -> PublicationView:
        status = job.status(alive(job.process()))
        return self._view(job, job.publish_config, job.created.timestamp(), status, job.state.end)
