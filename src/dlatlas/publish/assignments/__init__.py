"""Assignments made of the exercises of the chapters: released, validated by students, tested by mutants."""
