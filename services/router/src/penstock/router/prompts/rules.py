"""`prompts:` of the file: what may be done to whose prompts, checked as a whole.

No prompt comes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.prompts.conversation import Policy
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix_breaks import LOSSLESS_REPAIRS
from penstock.prompts.selection import Similarity
from penstock.prompts.templates import Template, template_problems
from penstock.router.requests.token_counts import token_counter
from penstock.service.settings import Section
from pydantic import Field, model_validator


class ShapingRule(Section):
    """What may be done for an organisation and a model; the first that fits counts.

    Lossy, and off unless asked for: selection by a `keep_share` below 1, and `templates` by their
    names.
    """

    organisation: str = "*"
    model: str = "*"
    """The model that was chosen for a call, never `auto`."""
    stable_prefix: bool = True
    later_system_turn: bool = False
    """The model takes a system turn behind others: lines with a clock or an id, and lines that were
    seen to change from prompt to prompt, may move there.
    """
    sort_schema_keys: bool = False
    """The model sees no meaning in the order of a schema's properties: keys may be sorted."""
    lossless: bool = True
    named_values: bool = True
    keep_share: float = Field(1.0, gt=0, le=1)
    templates: tuple[str, ...] = ()
    tokenizer_file: Path | None = None
    """The model's own `tokenizer.json`, which then counts tokens; without it they are estimated at
    four bytes each.
    """

    @property
    def selects(self) -> bool:
        """Whether the rule asks for lossy selection."""
        return self.keep_share < 1

    @property
    def repairs(self) -> frozenset[str]:
        """The rule's settings, of those that mend broken prefixes without loss, that are on."""
        return frozenset(name for name in set(LOSSLESS_REPAIRS.values()) if getattr(self, name))

    def fits(self, organisation: str, model: str) -> bool:
        """Whether the rule is for this organisation and model."""
        return self.organisation in ("*", organisation) and self.model in ("*", model)

    def policy(self, templates: Mapping[str, Template] | None = None) -> Policy:
        known = templates or {}
        return Policy(
            self.stable_prefix,
            self.lossless,
            self.later_system_turn,
            self.sort_schema_keys,
            named_values=self.named_values,
            keep_share=self.keep_share,
            templates=tuple(known[name] for name in self.templates),
        )

    def optimiser(
        self, templates: Mapping[str, Template] | None = None, similarity: Similarity | None = None
    ) -> Optimiser:
        """The optimiser of this rule; `similarity` serves where the rule selects.

        Raises:
            BadConfig: the tokenizer's file cannot be used.
        """
        counter = (
            token_counter(self.tokenizer_file, "prompts.rules") if self.tokenizer_file else None
        )
        return Optimiser(self.policy(templates), counter, similarity if self.selects else None)


class TemplateSection(Section):
    """A known long part of tool descriptions and tool results, and the shorter words that are to
    stand for it.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    part: str = Field(min_length=32)
    text: str


class PromptsSection(Section):
    """`prompts:` of the file; without a rule every generate task is shaped without loss."""

    rules: tuple[ShapingRule, ...] = (ShapingRule(),)
    templates: tuple[TemplateSection, ...] = ()
    embedder: Path | None = None
    """Folder of a text model, as `make model` makes one: it joins BM25 where a rule selects
    passages; without it BM25 selects alone.
    """

    @model_validator(mode="after")
    def _templates_fit(self) -> PromptsSection:
        wrong = template_problems(list(self._templates()))
        names = {template.name for template in self.templates}
        for place, rule in enumerate(self.rules):
            wrong += [
                f"rules[{place}].templates: there is no {name!r}"
                for name in rule.templates
                if name not in names
            ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _templates(self) -> tuple[Template, ...]:
        return tuple(
            Template(template.name, template.part, template.text) for template in self.templates
        )

    def optimisers(
        self, similarity: Similarity | None = None
    ) -> list[tuple[ShapingRule, Optimiser]]:
        """Each rule with its optimiser, in order.

        Raises:
            BadConfig: a tokenizer's file cannot be used.
        """
        known = {template.name: template for template in self._templates()}
        return [(rule, rule.optimiser(known, similarity)) for rule in self.rules]
