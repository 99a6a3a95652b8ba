"""What runs beside the scheduler for as long as the app does: the volume's keeper, and the Space's sleep."""

import threading

from ftapp.processes.awake import Awake
from ftapp.processes.keeper import Keeper
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.notices import Notices


def start_watching(settings: Settings, scheduler: Scheduler, closing: threading.Event) -> None:
    """Start what these settings ask for, each in a thread that ends when `closing` is set."""
    keeper = Keeper(settings.home, settings.volume, scheduler) if settings.volume else None
    awake = None
    if settings.space_id:
        kept = (lambda: keeper.kept) if keeper else (lambda: False)
        awake = Awake(settings.space_id, settings.hub_token, settings.home, scheduler, settings.sleep, kept)
    notices = Notices(settings.home)
    for topic, watched in (("volume", keeper), ("damaged", keeper), ("sleep", awake)):
        if watched is None:
            notices.say(topic, "")  # an earlier process may have had something to say
    for name, watch in (("keeper", keeper), ("awake", awake)):
        if watch:
            threading.Thread(target=watch.run, args=(closing,), name=name, daemon=True).start()
