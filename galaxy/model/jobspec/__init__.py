"""Job files: the spec, parsing, rules, schema, template, and import from Galaxy 3."""
