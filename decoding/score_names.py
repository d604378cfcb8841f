"""The names under which a drafter or a rule writes its numbers and a picture reads them. They stand in stored traces: add, never
change; what was renamed before is in `decoding.old_names`.

Scores belong to a node (`Node.scores`), facts to a step (`Step.facts`), sources say where a node came from (`Node.source`).
A name with {} is one of several, numbered or named: `name.format(3)` makes it, `part_of` reads it back.
"""


def part_of(template: str, name: str) -> str | None:
    """What stands in the place of {} in a name that was made from the template; None in any other name.

    >>> part_of("slot {}", "slot 12"), part_of("ms with {} rows", "ms with 8"), part_of("slot {}", "slots")
    ('12', None, None)
    """
    before, after = template.split("{}")
    if len(name) < len(before) + len(after) or not (name.startswith(before) and name.endswith(after)):
        return None
    return name[len(before) : len(name) - len(after)]


# a fact of any step: the run went on here, by a machine of a cluster that had been lost, from so many committed tokens
WENT_ON = "went on behind"

# sources: of methods with two kinds of drafters
RETRIEVED, DRAFTED, BOTH = "retrieved", "draft model", "both"

# scores of heads and of what grows a tree
JOINT, OWN = "joint q", "q"  # the product of q down to the node, and its own factor
RANK = "rank"  # of the token among the guesses, from 1
TREE_VALUE = "tree value"  # what the path was worth when the tree was grown
HEAD_PROBABILITY = "head probability"  # Medusa
PREDICTED = "predicted acceptance"  # SpecDec++; the last node has none: it is never fed to the draft model
FROM_H, FROM_O = "logit from h", "logit from o"  # Chimera: the two parts that a token's logit is the sum of
MOVED, GATE = "state moved by", "gate {}"  # Clover: of the cell that the head read; of the gates, one per attention head, from 1
SLOT_IN_BLOCK = "slot in block"  # Falcon, from 1
ROOT_Q = "q of the root"  # FTP: what output 0 gave the token that is known already
SLOT = "slot {}"  # FTP, from 1: share of the attention that a token's distribution paid to that vector of the memory
WITHOUT_VECTOR = "q without the vector"  # SentenceVAE: of the node, had the decoder been given no vector
SENTENCE_SO_FAR, VECTOR_AGE = "tokens of the sentence", "tokens since the vector"  # facts: written of it; behind its state
COSINE = "cosine with the true state"  # EAGLE, of an accepted node: of the state that the head put out behind it
LAYER_SHARE = "share of {}"  # EAGLE-3, a fact: of an aux hidden layer in the mix at the root

# PPD
PROMPT_TOKEN_PROBABILITY, PROMPT_TOKENS, STATE = "prompt token probability", "prompt tokens", "state"
ROOT_PROMPT_TOKENS, MEMBERS, ROW_BUDGET = "root prompt tokens", "members", "row budget"  # facts
LATENCY, YIELD = "ms with {} rows", "tokens with {} rows"  # facts of the first step of a run, where passes were timed

# Kangaroo and S2D: how deep a token went
CONFIDENCE, EXIT_LAYER, LAYERS = "confidence", "exit layer", "layers"
STOPPED = "stopped"  # of the last node only: why the draft ends there
EXIT, ROWS_READ, LAYER_PASSES = "exit", "rows read", "layer passes"
CONFIDENCE_AFTER = "confidence after layer {}"  # the largest probability at the exit behind so many layers

# DySpec and the windows of Jacobi decoding
ORDER, ESTIMATE_BEFORE, ESTIMATE_AFTER = "order", "estimate before", "estimate after"
CALLS_BEFORE = "calls before"  # since a guess was first made

# retrieval
MATCHED, OCCURRENCES = "matched", "occurrences"  # tokens that matched, and how often they stand in the store
WEIGHT, COUNT = "weight", "count"  # occurrences that go through the node, of a trie or of an infini-gram
SHARE = "P"  # the infini-gram's own estimate
DRAFT_VALUE = "draft value"  # RASD: the draft model's product of q

# rules of acceptance
TYPICAL_P, TYPICAL_THRESHOLD = "typical p", "typical threshold"  # a node passes if the first lies above the second
JUDGE_SCORE, JUDGE_ONLY, JUDGE_DEVIATION = "judge score", "judge only", "judge deviation"
RHO = "rho"
OF_POSITION = (RHO, "beta", "beta at k", "R3w", "optimum")  # K-SEQ: what was found for the node's position
COPIES, GUESSES = "copies", "guesses"  # K-SEQ: of the node, and of its position
UNIFORM_OF = "u of sequence {}"  # K-SEQ: of every copy, sequences count from 1

# LazyLLM: facts of a step; layers and tokens are those of the pruned target
PASSES, FULL_PASSES = "layer passes of the call", "layer passes of the full model"  # rows times layers
REVIVED, AUX_ENTRIES = "revived tokens", "aux entries"
FULL_KL, FULL_OVERLAP, FULL_AGREES = "KL to the full model", "overlap with the full model", "agrees with the full model"
# and its grids: a byte per token of the text; a byte per layer and token, layer after layer: 255 times the root of the share
DEPTH_REACHED, ATTENTION_PAID = "depth reached", "attention paid"

# byte drafting: facts of a step, bytes count from 1; and its grids: the bytes, and 1 where the drafter begins a token of its own
Q_OF_BYTE, P_OF_BYTE, U_OF_BYTE = "q of byte {}", "p of byte {}", "u of byte {}"
BYTES_DRAFTED, BYTES_ACCEPTED = "drafted symbols", "accepted symbols"  # the end of the text is one beside the bytes
DRAFTED_BYTES, DRAFTER_TOKENS = "drafted bytes", "tokens of the drafter"
