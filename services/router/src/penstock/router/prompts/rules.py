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
from penstock.prompts.tool_pruning import PruningPolicy
from penstock.router.requests.token_counts import token_counter
from penstock.service.settings import Section
from pydantic import Field, model_validator


class ToolPruningSection(Section):
    """Lossy: tools that a conversation is unlikely to need are left out of its prompts."""

    omitted_share: float = Field(0.01, gt=0, le=0.2)
    """Share of user turns whose tool may be among those left out."""
    always_keep: tuple[str, ...] = ()
    """Names of tools that are never left out, such as a search for whatever nothing else fits."""
    dry_run: bool = False
    """Receipts say what would be left out; all tools are sent."""

    @property
    def policy(self) -> PruningPolicy:
        return PruningPolicy(self.omitted_share, frozenset(self.always_keep))


class ShapingRule(Section):
    """What may be done for an organisation and a model; the first that fits counts.

    Lossy, and off unless asked for: selection by a `keep_share` below 1, `templates` by their
    names, and `prune_tools`.
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
    prune_tools: ToolPruningSection | None = None
    """Which tools may be left out; needs the section's `embedder`."""
    tokenizer_file: Path | None = None
    """The model's own `tokenizer.json`, which then counts tokens; without it they are estimated at
    four bytes each.
    """

    @property
    def selects(self) -> bool:
        """Whether the rule asks for lossy selection."""
        return self.keep_share < 1

    @property
    def needs_embedder(self) -> bool:
        """Whether the embedder, where there is one, has a part in it."""
        return self.selects or self.prune_tools is not None

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
    passages, which BM25 selects alone without it, and where a rule leaves tools out, which none
    does without it.
    """

    @model_validator(mode="after")
    def _rules_fit(self) -> PromptsSection:
        wrong = template_problems(list(self._templates()))
        names = {template.name for template in self.templates}
        for place, rule in enumerate(self.rules):
            wrong += [
                f"rules[{place}].templates: there is no {name!r}"
                for name in rule.templates
                if name not in names
            ]
            if rule.prune_tools is not None and self.embedder is None:
                wrong.append(f"rules[{place}].prune_tools: needs prompts.embedder")
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
