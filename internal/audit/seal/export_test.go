package seal

import "golang.org/x/mod/sumdb/note"

// Signer signs notes that aren't heads, as nothing but a test does.
func (k *Key) Signer() note.Signer { return k.signer }
