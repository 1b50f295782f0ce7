package fhir

// A form marks what it stands for with bytes that JSON can't hold unescaped, so that no value can be mistaken for a form.
const (
	formInteger   = "\x01i"
	formDecimal   = "\x01d"
	formID        = "\x01n"
	formMoment    = "\x01t"
	formReference = "\x01r"
)

// formOf appends a member's value to out, with the following values written as one each, because google/fhir's verdict on
// one of them is its verdict on all, in an element of whichever type:
//
//   - integers from 1 to 999,999,999, and decimals without exponent: their digits;
//   - dates and times of the years 1900 to 2099 that are in the calendar: their digits, but not how many there are;
//   - local references such as Patient/1: the id, but for what makes it base64 or not;
//   - the elements id and versionId, where they hold an id of R4's.
//
// White space between tokens is left out. value is well-formed JSON, as check has seen.
func formOf(out []byte, name string, value []byte) []byte {
	f := former{in: scanner{data: value}, out: out}
	f.value([]byte(name))
	return f.out
}

type former struct {
	in  scanner
	out []byte
}

func (f *former) value(name []byte) {
	switch b, _ := f.in.peek(); b {
	case '{':
		f.members('{', '}', func() {
			inner, _, _ := f.in.key()
			f.out = append(append(append(f.out, '"'), inner...), '"', ':')
			f.value(inner)
		})
	case '[':
		f.members('[', ']', func() { f.value(name) })
	case '"':
		inner, escaped, _ := f.in.str()
		f.out = append(f.out, '"')
		if escaped {
			f.out = append(f.out, inner...)
		} else {
			f.out = appendText(f.out, name, inner)
		}
		f.out = append(f.out, '"')
	default:
		word, err := f.in.scalar()
		if err != nil {
			f.in.pos = len(f.in.data) // not JSON: check has refused it
		}
		f.out = appendNumber(f.out, word)
	}
}

// members writes what is between brackets.
func (f *former) members(opening, closing byte, each func()) {
	f.out = append(f.out, opening)
	empty, err := f.in.open(opening, closing)
	for more := !empty; more && err == nil; {
		each()
		f.out = append(f.out, ',')
		more, err = f.in.more(closing)
	}
	f.out = append(f.out, closing)
}

func appendNumber(out, word []byte) []byte {
	if len(word) == 0 || word[0] > '9' {
		return append(out, word...) // true, false, null
	}
	digits, points, exponent := 0, 0, false
	for _, b := range word {
		switch {
		case b == '.':
			points++
		case isDigit(b):
			digits++
		case b == 'e' || b == 'E':
			exponent = true
		}
	}
	switch {
	case exponent:
	case points == 1 && digits <= 18 && word[0] == '-':
		return append(append(out, formDecimal...), '-')
	case points == 1 && digits <= 18:
		return append(out, formDecimal...)
	case points == 0 && digits <= 9 && word[0] != '-' && word[0] != '0':
		return append(out, formInteger...)
	}
	return append(out, word...)
}

func appendText(out, name, text []byte) []byte {
	switch {
	case (string(name) == "id" || string(name) == "versionId") && isR4ID(text):
		return append(out, formID...)
	case isMoment(text):
		out = append(out, formMoment...)
		for _, b := range text {
			if isDigit(b) {
				b = '0'
			}
			out = append(out, b)
		}
		return out
	}
	for i, b := range text {
		if b == '/' {
			return appendReference(out, text, text[:i], text[i+1:])
		}
		if !isLetter(b) {
			break
		}
	}
	return append(out, text...)
}

// appendReference writes Type/id. An id of letters and digits alone could be base64, which depends on its length.
func appendReference(out, text, typ, id []byte) []byte {
	if len(typ) == 0 || !isR4ID(id) {
		return append(out, text...)
	}
	out = append(append(out, formReference...), typ...)
	for _, b := range id {
		if !isDigit(b) && !isLetter(b) {
			return out
		}
	}
	return append(out, '/', '0'+byte(len(text)%4))
}

// isMoment reports whether text is a date, or a date and time, that exists: YYYY-MM-DD, YYYY-MM-DDThh:mm:ss with a fraction or
// without, and a zone.
func isMoment(text []byte) bool {
	const date, seconds = len("2006-01-02"), len("2006-01-02T15:04:05")
	if len(text) < date || !isDate(text[:date]) {
		return false
	}
	if len(text) == date {
		return true
	}
	if len(text) <= seconds || text[date] != 'T' || text[13] != ':' || text[16] != ':' ||
		!within(text[11:13], 0, 23) || !within(text[14:16], 0, 59) || !within(text[17:19], 0, 59) {
		return false
	}
	zone := text[seconds:]
	if zone[0] == '.' {
		n := 1
		for n < len(zone) && isDigit(zone[n]) {
			n++
		}
		if n == 1 || n > 10 {
			return false
		}
		zone = zone[n:]
	}
	if len(zone) == 1 {
		return zone[0] == 'Z'
	}
	return len(zone) == 6 && (zone[0] == '+' || zone[0] == '-') && zone[3] == ':' && within(zone[1:3], 0, 13) && within(zone[4:6], 0, 59)
}

// isDate takes no 31st of a month and no 29th of February, which don't always exist.
func isDate(text []byte) bool {
	return within(text[:2], 19, 20) && isDigit(text[2]) && isDigit(text[3]) && text[4] == '-' && within(text[5:7], 1, 12) &&
		text[7] == '-' && (within(text[8:10], 1, 28) || within(text[8:10], 29, 30) && string(text[5:7]) != "02")
}

// within reports whether two bytes are a number from low to high.
func within(text []byte, low, high int) bool {
	n := int(text[0]-'0')*10 + int(text[1]-'0')
	return isDigit(text[0]) && isDigit(text[1]) && low <= n && n <= high
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

func isLetter(b byte) bool { return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' }

// isR4ID reports whether text is an id of R4 (§2.24.0.1): IsID takes more.
func isR4ID(text []byte) bool {
	for _, b := range text {
		if !isDigit(b) && !isLetter(b) && b != '-' && b != '.' {
			return false
		}
	}
	return 0 < len(text) && len(text) <= 64
}
