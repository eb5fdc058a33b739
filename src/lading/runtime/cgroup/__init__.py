"""Control groups on v1, v2 and hybrid hosts. `layout` finds what the host has, `settings` is pure, `group` acts."""
