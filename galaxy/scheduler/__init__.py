"""Pure decisions about placement: feasibility, ranking, explanation, liveness, quota."""
