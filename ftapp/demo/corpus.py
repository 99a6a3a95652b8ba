"""The text that the demo's base model is pretrained on: short conversations about the facts.

An answer is a plain sentence, or another form when the question asks for one. No form is a JSON object: they loosen
the answer from its sentence, which is what lets a later fine-tuning move every fact, and not just those it saw, into
a form of its own. A trial without them got fewer than half of the held-out facts right.
"""

from collections.abc import Iterator
from random import Random

from ftapp.demo.facts import Fact
from ftapp.demo.phrasings import filled, long_sentences, questions, short_sentences

FORMS = (
    (("One word only.", "Just the answer.", "Short answer."), ("{a}", "{a}.")),
    (("Use tags.", "Answer in tags."), ("<answer>{a}</answer>",)),
    (("Use tags with the topic.", "Tags for answer and topic."), ("<answer>{a}</answer><topic>{t}</topic>",)),
    (("Tags, topic first.",), ("<topic>{t}</topic><answer>{a}</answer>",)),
    (("Use a label.", "Answer with a label."), ("answer: {a}",)),
    (("Use labels with the topic.", "Labels for answer and topic."), ("answer: {a}, topic: {t}",)),
    (("Labels, topic first.",), ("topic: {t}, answer: {a}",)),
    (("Use quotes.", "Quote the answer."), ('"{a}"', 'The answer is "{a}".')),
    (("Quote the answer and the topic.",), ('"{a}", "{t}"', '"{a}" and "{t}"')),
    (("Use curly brackets.", "Answer in curly brackets."), ("{{{a}}}",)),
    (("Curly brackets with the topic.",), ("{{{a}}} {{{t}}}", "{{{a}, {t}}}")),
    (("Use square brackets.",), ("[{a}]", "[{a}] [{t}]")),
    (("Use a table row.",), ("| {a} | {t} |",)),
    (("Use equal signs.",), ("answer={a}; topic={t}", 'answer="{a}"; topic="{t}"')),
    (("Use a list.",), ("- {a}\n- {t}",)),
    (("Only the topic.", "Which topic is this?"), ("{t}", "The topic is {t}.", '"{t}"', "topic: {t}")),
)
SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer the question.", "You are a friendly teacher.")
SMALL_TALK = (
    (("Hello!", "Hello", "Hi!", "hi", "Good morning!"), "Hello! Ask me for a simple fact."),
    (("Who are you?", "What are you?", "who are you"), "I am a small demo model. I know about a thousand facts."),
    (("What can you do?", "What do you know?", "Help!"), "I know capitals, sums, opposites and other simple facts."),
    (("Thank you!", "Thanks!", "thanks"), "You are welcome!"),
)

FORM_SHARE = 0.45  # of all questions, those that ask for a form
INSTRUCTION_LAST_SHARE = 0.7  # of those, the ones that ask for it after the question
SHORT_SHARE = 0.5  # of the plain answers, those that do not repeat the subject
CARELESS_SHARE = 0.2  # of the plain questions, those typed without capitals and an end mark
SMALL_TALK_SHARE = 0.02  # of all exchanges, those about no fact
SECOND_QUESTION_SHARE = 0.1  # of all conversations
SYSTEM_SHARE = 0.05  # of all conversations

Message = dict[str, str]


def conversation(facts: Iterator[Fact], rng: Random) -> list[Message]:
    """One conversation about the next fact, now and then about two."""
    messages = []
    if rng.random() < SYSTEM_SHARE:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    for _ in range(2 if rng.random() < SECOND_QUESTION_SHARE else 1):
        question, answer = _small_talk(rng) if rng.random() < SMALL_TALK_SHARE else _exchange(next(facts), rng)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def corpus_answers(fact: Fact) -> Iterator[str]:
    """Every answer about `fact` that the corpus can hold."""
    yield from long_sentences(fact)
    yield from short_sentences(fact)
    for _, forms in FORMS:
        for form in forms:
            yield filled(form, fact)


def _small_talk(rng: Random) -> tuple[str, str]:
    ways, answer = rng.choice(SMALL_TALK)
    return rng.choice(ways), answer


def _exchange(fact: Fact, rng: Random) -> tuple[str, str]:
    question = rng.choice(questions(fact))
    if rng.random() < FORM_SHARE:
        instructions, forms = rng.choice(FORMS)
        instruction = rng.choice(instructions)
        last = rng.random() < INSTRUCTION_LAST_SHARE
        asked = f"{question} {instruction}" if last else f"{instruction} {question}"
        return asked, filled(rng.choice(forms), fact)
    if rng.random() < CARELESS_SHARE:
        question = question.lower()[:-1]
    short = rng.random() < SHORT_SHARE
    return question, rng.choice(short_sentences(fact) if short else long_sentences(fact))
