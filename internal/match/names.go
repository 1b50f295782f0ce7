package match

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cura-health/ehr-sync/internal/cura"
)

// families are all the family names that a patient is known to have had: the one shown, a maiden name, an old one.
func families(p *cura.Profile) []string {
	var all []string
	if p.Name != nil && p.Name.Family != "" {
		all = append(all, p.Name.Family)
	}
	for _, n := range p.OtherNames {
		if n.Family != "" {
			all = append(all, n.Family)
		}
	}
	return all
}

// givens are all the given names that a patient is known by.
func givens(p *cura.Profile) []string {
	var all []string
	if p.Name != nil {
		all = append(all, p.Name.Given...)
	}
	for _, n := range p.OtherNames {
		all = append(all, n.Given...)
	}
	return all
}

// sharesName reports whether a name of the one side is, but for its spelling, one of the other's.
func sharesName(some, others []string) bool {
	return slices.ContainsFunc(some, func(a string) bool {
		return slices.ContainsFunc(others, func(b string) bool { return sameName(a, b) })
	})
}

// sameName reports whether two names are spellings of one. Case, accents, apostrophes, hyphens and blanks don't count, ä is a as
// well as ae, and a name agrees with a double one that has it: Meyer with Meyer-Schulz, Berg with van den Berg.
func sameName(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	for _, long := range []bool{false, true} {
		as, bs := foldName(a, long), foldName(b, long)
		if len(as) == 0 || len(bs) == 0 {
			return false
		}
		if strings.Join(as, "") == strings.Join(bs, "") || within(as, bs) || within(bs, as) {
			return true
		}
	}
	return false
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(part string) bool { return !slices.Contains(all, part) })
}

// foldName gives the parts of a name in lower case without accents. long spells umlauts out, as German and the Nordic
// languages do where a keyboard has none.
func foldName(name string, long bool) []string {
	var b strings.Builder
	b.Grow(len(name))
	for _, r := range name {
		r = unicode.ToLower(r)
		switch {
		case r <= unicode.MaxASCII && unicode.IsLetter(r):
			b.WriteRune(r)
		case unicode.Is(unicode.Mn, r) || r == '\'' || r == '’' || r == '‘' || r == 'ʼ' || r == '`' || r == '´':
			// An accent that is a character of its own, or an apostrophe: O'Brien is OBrien.
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			b.WriteByte(' ')
		default:
			b.WriteString(plainLetter(r, long))
		}
	}
	return strings.Fields(b.String())
}

// plainLetter spells a letter in lower case without its accent; one that isn't known stays. The Unicode tables would be a
// dependency for what names of patients hardly need: a letter that is missing here sends somebody to review, no more.
func plainLetter(r rune, long bool) string {
	if long {
		switch r {
		case 'ä', 'æ':
			return "ae"
		case 'ö', 'ø', 'œ':
			return "oe"
		case 'ü':
			return "ue"
		case 'å':
			return "aa"
		}
	}
	switch r {
	case 'ß', 'ẞ':
		return "ss"
	case 'þ':
		return "th"
	case 'æ':
		return "ae"
	case 'œ':
		return "oe"
	case 'ё':
		return "е"
	}
	for _, letters := range []string{
		"aàáâãäåāăąǎȁȃạảấầẩẫậắằẳẵặ", "cçćĉċč", "dďđð", "eèéêëēĕėęěȅȇẹẻẽếềểễệ", "gĝğġģǧ", "hĥħ", "iìíîïĩīĭįıǐȉȋỉị", "jĵ", "kķǩ", "lĺļľŀł",
		"nñńņňŋ", "oòóôõöøōŏőǒȍȏơọỏốồổỗộớờởỡợ", "rŕŗřȑȓ", "sśŝşšș", "tţťŧț", "uùúûüũūŭůűųǔȕȗưụủứừửữự", "wŵẁẃẅ", "yýÿŷȳỳỵỷỹ", "zźżž",
		"αά", "εέ", "ηή", "ιίϊΐ", "οό", "σς", "υύϋΰ", "ωώ",
	} {
		if strings.ContainsRune(letters, r) {
			_, first := utf8.DecodeRuneInString(letters)
			return letters[:first]
		}
	}
	return string(r)
}
