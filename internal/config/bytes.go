package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a number of bytes, written like GOMEMLIMIT: 167772160, or with a unit as 160MiB.
type Bytes int64

// UnmarshalText reads a number with the unit B, KiB, MiB, GiB or TiB, or without one.
func (b *Bytes) UnmarshalText(text []byte) error {
	digits, factor := string(text), int64(1)
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB", "B"} {
		if cut, ok := strings.CutSuffix(digits, unit); ok {
			if digits = cut; unit != "B" {
				factor = 1 << (10 * (i + 1))
			}
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return fmt.Errorf("%q isn't a number of bytes such as 160MiB", text)
	}
	*b = Bytes(n * factor)
	return nil
}
