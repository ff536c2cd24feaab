"""Labels that are posted at least once: clients retry what broke or was answered "not now".

Knows the answers of /feedback; knows nothing of what is done to the service meanwhile.
"""

import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from bench.clients.labels import Predicted, feedback_call
from bench.clients.traffic import Client, error_code
from bench.rig.service import Server

RETRIED = (0, 408, 503, 504)  # statuses after which a label may or may not have been recorded
PAUSE = 0.05  # seconds before a retry
PATIENCE = 60.0  # seconds after which a client gives up


@dataclass(frozen=True)
class Post:
    """A label for an id, and True if the prediction was correct."""

    id: str
    label: str
    correct: bool


@dataclass(frozen=True)
class PostOutcome:
    """A post, from its first try to the last."""

    post: Post
    seconds: float
    status: int
    answer: str

    @property
    def kept(self) -> bool:
        """Return True if the label was accepted, and the prediction judged correctly."""
        correct = f"{self.post.correct}".lower()
        return self.status == 200 and self.answer in (f"recorded {correct}", f"duplicate {correct}")


def make_posts(
    predicted: Sequence[Predicted], names: Sequence[str], *, wrong: float, rng: random.Random
) -> list[Post]:
    """Return posts of the true labels, a share ``wrong`` of them replaced by another label."""
    replaced = set(rng.sample(range(len(predicted)), round(wrong * len(predicted))))
    posts = []
    for place, each in enumerate(predicted):
        label = each.label
        if place in replaced:
            label = rng.choice([name for name in names if name != label])
        posts.append(Post(each.id, label, label == each.predicted))
    return posts


def repeated(posts: Sequence[Post], times: int, rng: random.Random) -> list[Post]:
    """Return all posts once and ``times`` of them again, in random order."""
    mixed = [*posts, *rng.sample(posts, times)]
    rng.shuffle(mixed)
    return mixed


def summary(status: int, body: bytes) -> str:
    """Return the gist of an answer: ``recorded true``, or the code of an error."""
    if status != 200:
        return error_code(status, body)
    answer = json.loads(body)
    return f"{answer.get('status')} {str(answer.get('correct')).lower()}"


class Poster(threading.Thread):
    """Posts labels one after another, to the replicas in turn, each until it is answered."""

    def __init__(self, replicas: Sequence[Server], posts: Sequence[Post], first: int) -> None:
        super().__init__(daemon=True)
        self.clients = [Client(server, note=summary) for server in replicas]  # one per replica
        self.outcomes: list[PostOutcome] = []
        self._posts = posts
        self._turns = islice(cycle(self.clients), first % len(replicas), None)

    def run(self) -> None:
        """Post all labels."""
        for post in self._posts:
            self.outcomes.append(self._post(post))
        for client in self.clients:
            client.close()

    def _post(self, post: Post) -> PostOutcome:
        call, began = feedback_call(post.id, post.label), time.monotonic()
        while True:
            client = next(self._turns)
            outcome = client.send(call)
            client.outcomes.append(outcome)
            seconds = time.monotonic() - began
            if outcome.status not in RETRIED or seconds > PATIENCE:
                return PostOutcome(post, seconds, outcome.status, outcome.code)
            time.sleep(PAUSE)


def posters(replicas: Sequence[Server], posts: Sequence[Post], count: int) -> list[Poster]:
    """Start clients that share the posts."""
    made = [Poster(replicas, posts[place::count], place) for place in range(count)]
    for each in made:
        each.start()
    return made
