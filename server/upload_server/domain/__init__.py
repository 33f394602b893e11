"""What every part of the service speaks of: states, errors, rules of fields, tokens, the audit chain's form. No I/O."""
