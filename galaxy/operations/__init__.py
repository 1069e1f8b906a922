"""Operations of the API on the leader's side: declared once, authorised, answered once, audited."""
