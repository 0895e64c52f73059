"""What a run writes: files, results, tables, pictures."""
