"""`lab.check(Mine())` runs any implementation of a noun through what the rest of the house relies on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from policylab import spaces
from policylab.conformance.learners import learner_tests
from policylab.conformance.policies import form_tests, policy_tests
from policylab.conformance.surroundings import environment_tests, scorer_tests, source_tests
from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.examples import example_spec, example_specs, example_text_spec
from policylab.experience import Spec
from policylab.learner import Learner
from policylab.policy import Form, Policy
from policylab.scorer import Scorer
from policylab.source import Source


@dataclass(frozen=True)
class Conformance:
    """What was checked: (name, None if it holds, else the sentence that says how to mend it)."""

    subject: str
    rows: tuple[tuple[str, str | None], ...]

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return all(problem is None for _, problem in self.rows)

    def __str__(self) -> str:
        lines = [
            f"{'ok  ' if problem is None else 'FAIL'} {name}" + (f": {problem}" if problem else "")
            for name, problem in self.rows
        ]
        return "\n".join([f"{self.subject}: {'conforms' if self.passed else 'does not conform'}", *lines])


def check(subject: Any, *, spec: Spec | None = None) -> Conformance:
    """Run the suite that belongs to the noun of `subject`: a Learner, Form, Policy, Environment, Scorer or Source.

    `spec` gives the spaces to try it on; by default small continuous or discrete ones, as the subject says it can do.
    """
    if isinstance(subject, Learner):
        tests = learner_tests(subject, spec or _example_for(subject))
    elif isinstance(subject, Form):
        tests = form_tests(subject, spec)
    elif isinstance(subject, Policy):
        if spec is None:
            raise BadInput("check needs the spec of a policy to try it on: check(policy, spec=environment.spec)")
        tests = policy_tests(subject, spec)
    elif isinstance(subject, Environment):
        tests = environment_tests(subject)
    elif isinstance(subject, Source):
        tests = source_tests(subject)
    elif isinstance(subject, Scorer):
        tests = scorer_tests(subject, spec or example_spec())
    else:
        raise BadInput(
            f"check knows learners, forms, policies, environments, sources and scorers, not {type(subject).__name__}"
        )
    rows = []
    for name, test in tests:
        try:
            test()
            rows.append((name, None))
        except AssertionError as problem:
            rows.append((name, str(problem)))
        except Exception as problem:  # whatever a user's class raises is a failed test, not the end of the suite
            rows.append((name, f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"))
    return Conformance(type(subject).__name__, tuple(rows))


def _example_for(learner: Learner) -> Spec:
    """The first small spec with the learner's kind of action that its `init` accepts; one of texts where it takes no other."""
    discrete = learner.actions == "discrete"
    for spec in example_specs():
        if isinstance(spec.action, spaces.Discrete) == discrete and _accepts(learner, spec):
            return spec
    words = example_text_spec()
    return words if _accepts(learner, words) else example_spec(discrete=discrete)


def _accepts(learner: Learner, spec: Spec) -> bool:
    try:
        jax.eval_shape(lambda key: learner.init(spec, key=key), jax.random.key(0))
    except BadInput:
        return False
    except Exception:  # a defect of the user's class: the suite itself says what is wrong with it
        pass
    return True
