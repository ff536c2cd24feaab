"""Labels that are posted at least once: by clients that repeat what broke or could not be taken.

Knows the answers of /feedback; knows nothing of what is done to the service meanwhile.
"""

import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from bench.clients.labels import Predicted, one_label
from bench.clients.traffic import Client, error_code
from bench.rig.service import Server

AGAIN = (0, 408, 503, 504)  # no answer, not now, or perhaps
PAUSE = 0.05  # seconds before another try
PATIENCE = 60.0  # seconds after which a client gives up


@dataclass(frozen=True)
class Post:
    """A label for an id, and whether it is what was predicted."""

    id: str
    label: str
    correct: bool

    @property
    def answers(self) -> set[str]:
        """What may be answered."""
        told = f"{self.correct}".lower()
        return {f"recorded {told}", f"duplicate {told}"}


@dataclass(frozen=True)
class Posted:
    """A post, from its first try to the last."""

    post: Post
    seconds: float
    tries: int
    status: int
    answer: str

    @property
    def kept(self) -> bool:
        """It was taken, and judged rightly."""
        return self.status == 200 and self.answer in self.post.answers


def labelled(
    predicted: Sequence[Predicted], names: Sequence[str], *, wrong: float, rng: random.Random
) -> list[Post]:
    """The true labels, but for a share that is given another one."""
    strange = set(rng.sample(range(len(predicted)), round(wrong * len(predicted))))
    posts = []
    for place, each in enumerate(predicted):
        label = each.label
        if place in strange:
            label = rng.choice([name for name in names if name != label])
        posts.append(Post(each.id, label, label == each.predicted))
    return posts


def repeated(posts: Sequence[Post], times: int, rng: random.Random) -> list[Post]:
    """Each once, so many of them again, all in any order."""
    mixed = [*posts, *rng.sample(posts, times)]
    rng.shuffle(mixed)
    return mixed


def said(status: int, body: bytes) -> str:
    """What an answer says: ``recorded true``, or the code of an error."""
    if status != 200:
        return error_code(status, body)
    told = json.loads(body)
    return f"{told.get('status')} {str(told.get('correct')).lower()}"


class Poster(threading.Thread):
    """Posts one after another, to one replica after another, each until it is answered."""

    def __init__(self, replicas: Sequence[Server], posts: Sequence[Post], first: int) -> None:
        super().__init__(daemon=True)
        self.clients = [Client(server, noted=said) for server in replicas]  # one of each replica
        self.posted: list[Posted] = []
        self._posts = posts
        self._turns = islice(cycle(self.clients), first % len(replicas), None)

    def run(self) -> None:
        """To the end."""
        for post in self._posts:
            self.posted.append(self._post(post))

    def _post(self, post: Post) -> Posted:
        call, began, tries = one_label(post.id, post.label), time.monotonic(), 0
        while True:
            client = next(self._turns)
            outcome, tries = client.sent(call), tries + 1
            client.outcomes.append(outcome)
            seconds = time.monotonic() - began
            if outcome.status not in AGAIN or seconds > PATIENCE:
                return Posted(post, seconds, tries, outcome.status, outcome.code)
            time.sleep(PAUSE)


def posters(replicas: Sequence[Server], posts: Sequence[Post], count: int) -> list[Poster]:
    """So many clients, started, that share the posts."""
    made = [Poster(replicas, posts[place::count], place) for place in range(count)]
    for each in made:
        each.start()
    return made
