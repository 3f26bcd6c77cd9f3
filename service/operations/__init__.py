"""Operations: every mutation, journalled before its first side effect."""
