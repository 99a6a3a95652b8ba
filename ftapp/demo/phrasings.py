"""How the demo asks for a fact and how it says one in a plain sentence.

In the templates {s} is the subject, {a} the answer and {t} the topic; {a_s} and {a_a} put the right "a" or "an" first.
"""

from ftapp.demo.facts import Fact

QUESTIONS = {
    "capital": (
        "What is the capital of {s}?",
        "What is the capital city of {s}?",
        "Which city is the capital of {s}?",
        "Name the capital of {s}.",
        "Tell me the capital of {s}.",
    ),
    "continent": (
        "On which continent is {s}?",
        "Which continent is {s} in?",
        "What continent does {s} belong to?",
        "Name the continent of {s}.",
        "Tell me the continent of {s}.",
    ),
    "currency": (
        "What is the currency of {s}?",
        "Which currency is used in {s}?",
        "What money do people use in {s}?",
        "Name the currency of {s}.",
        "Tell me the currency of {s}.",
    ),
    "opposite": (
        "What is the opposite of {s}?",
        "Which word is the opposite of {s}?",
        "What word means the reverse of {s}?",
        "Name the opposite of {s}.",
        "Tell me the opposite of {s}.",
    ),
    "plural": (
        "What is the plural of {s}?",
        "Which word is the plural of {s}?",
        "What do we write for more than one {s}?",
        "Name the plural of {s}.",
        "Tell me the plural of {s}.",
    ),
    "past": (
        "What is the past tense of {s}?",
        "What is the past form of {s}?",
        "Which word is the past tense of {s}?",
        "Name the past tense of {s}.",
        "Tell me the past tense of {s}.",
    ),
    "sound": (
        "What sound do {s} make?",
        "What do {s} do to make a sound?",
        "Which word is used for the sound of {s}?",
        "Name the sound of {s}.",
        "Tell me the sound that {s} make.",
    ),
    "young": (
        "What is a young {s} called?",
        "What do we call a baby {s}?",
        "What is the name for the young of {a_s}?",
        "Name the young of {a_s}.",
        "Tell me the name of a young {s}.",
    ),
    "color": (
        "What color is {s}?",
        "What is the color of {s}?",
        "Which color does {s} have?",
        "Name the color of {s}.",
        "Tell me the color of {s}.",
    ),
    "symbol": (
        "What is the chemical symbol of {s}?",
        "Which symbol does {s} have?",
        "How do chemists write {s}?",
        "Name the chemical symbol of {s}.",
        "Tell me the chemical symbol of {s}.",
    ),
    "sum": (
        "What is {s}?",
        "How much is {s}?",
        "What do you get for {s}?",
        "Work out {s}.",
        "Tell me the sum {s}.",
    ),
    "day_after": (
        "Which day comes after {s}?",
        "What day follows {s}?",
        "Name the day after {s}.",
        "Tell me the day after {s}.",
    ),
    "day_before": (
        "Which day comes before {s}?",
        "What day is just before {s}?",
        "Name the day before {s}.",
        "Tell me the day before {s}.",
    ),
    "month_after": (
        "Which month comes after {s}?",
        "What month follows {s}?",
        "Name the month after {s}.",
        "Tell me the month after {s}.",
    ),
    "month_before": (
        "Which month comes before {s}?",
        "What month is just before {s}?",
        "Name the month before {s}.",
        "Tell me the month before {s}.",
    ),
    "month_number": (
        "What number is the month {s}?",
        "Which number does the month {s} have?",
        "Name the number of the month {s}.",
        "Tell me the month number of {s}.",
    ),
}

SENTENCES = {
    "capital": ("The capital of {s} is {a}.", "{a} is the capital of {s}."),
    "continent": ("The continent of {s} is {a}.", "{s} is in {a}."),
    "currency": ("The currency of {s} is the {a}.", "People in {s} use the {a}."),
    "opposite": ("The opposite of {s} is {a}.", "The word {a} is the opposite of {s}."),
    "plural": ("The plural of {s} is {a}.", "The word {a} is the plural of {s}."),
    "past": ("The past tense of {s} is {a}.", "The word {a} is the past tense of {s}."),
    "sound": ("{s} {a}.", "The word for the sound of {s} is {a}."),
    "young": ("A young {s} is {a_a}.", "The young of {a_s} is called {a_a}."),
    "color": ("The color of {s} is {a}.", "{s} is {a}."),
    "symbol": ("The chemical symbol of {s} is {a}.", "{a} is the symbol of {s}."),
    "sum": ("{s} is {a}.", "The sum is {a}."),
    "day_after": ("The day after {s} is {a}.", "{a} comes after {s}."),
    "day_before": ("The day before {s} is {a}.", "{a} comes before {s}."),
    "month_after": ("The month after {s} is {a}.", "{a} comes after {s}."),
    "month_before": ("The month before {s} is {a}.", "{a} comes before {s}."),
    "month_number": ("The number of the month {s} is {a}.", "{s} is month number {a}."),
}
SHORT_SENTENCES = ("It is {a}.", "That is {a}.", "The answer is {a}.")
SHORT_WITH_ARTICLE = {
    "currency": ("It is the {a}.", "That is the {a}.", "The answer is the {a}."),
    "young": ("It is {a_a}.", "That is {a_a}.", "The answer is {a_a}."),
}


def questions(fact: Fact) -> list[str]:
    """Every plain way to ask for `fact`."""
    return [filled(template, fact) for template in QUESTIONS[fact.relation]]


def long_sentences(fact: Fact) -> list[str]:
    """The plain sentences that name the subject and the answer."""
    return [_sentence(template, fact) for template in SENTENCES[fact.relation]]


def short_sentences(fact: Fact) -> list[str]:
    """The plain sentences that name the answer only."""
    return [_sentence(template, fact) for template in SHORT_WITH_ARTICLE.get(fact.relation, SHORT_SENTENCES)]


def filled(template: str, fact: Fact) -> str:
    """`template` with the words of `fact` in it."""
    text = template.format(
        s=fact.subject,
        a=fact.answer,
        t=fact.topic,
        a_s=_with_article(fact.subject),
        a_a=_with_article(fact.answer),
    )
    return text.replace("..", ".")  # an answer may end in a stop of its own


def _sentence(template: str, fact: Fact) -> str:
    text = filled(template, fact)
    return text[0].upper() + text[1:]


def _with_article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
