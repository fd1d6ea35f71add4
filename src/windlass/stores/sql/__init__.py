"""The operations of a store whose shell speaks SQL: plans of named statements, which each database words for itself."""
