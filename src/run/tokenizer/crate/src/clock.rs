//! `strftime_now`: Python's strftime over a local time that the caller gives.

/// Year, month 1-12, day 1-31, hour, minute, second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Time {
    fn leap(&self) -> bool {
        (self.year % 4 == 0 && self.year % 100 != 0) || self.year % 400 == 0
    }

    /// 1-366.
    fn day_of_year(&self) -> i64 {
        const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let after_leap_day = i64::from(self.leap() && self.month > 2);
        BEFORE[self.month_index()] + self.day + after_leap_day
    }

    /// 0 is Sunday.
    fn day_of_week(&self) -> i64 {
        let years = self.year - 1;
        let days = years * 365 + years.div_euclid(4) - years.div_euclid(100)
            + years.div_euclid(400)
            + self.day_of_year();
        days.rem_euclid(7)
    }

    fn month_index(&self) -> usize {
        (self.month.clamp(1, 12) - 1) as usize
    }

    fn hour12(&self) -> i64 {
        (self.hour + 11).rem_euclid(12) + 1
    }

    pub fn format(&self, pattern: &str) -> String {
        let mut out = String::new();
        let mut rest = pattern.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            // glibc's "%-d": without padding.
            let mut code = rest.next();
            let plain = code == Some('-');
            if plain {
                code = rest.next();
            }
            match code {
                Some(code) => self.push(&mut out, code, plain),
                None => out.push('%'),
            }
        }
        out
    }

    fn push(&self, out: &mut String, code: char, plain: bool) {
        let mut number = |value: i64, width: usize| {
            let width = if plain { 0 } else { width };
            out.push_str(&format!("{value:0width$}"));
        };
        match code {
            'Y' => number(self.year, 0),
            'y' => number(self.year.rem_euclid(100), 2),
            'C' => number(self.year.div_euclid(100), 2),
            'm' => number(self.month, 2),
            'd' => number(self.day, 2),
            'H' => number(self.hour, 2),
            'I' => number(self.hour12(), 2),
            'M' => number(self.minute, 2),
            'S' => number(self.second, 2),
            'f' => number(0, 6),
            'j' => number(self.day_of_year(), 3),
            'w' => number(self.day_of_week(), 0),
            'u' => number((self.day_of_week() + 6) % 7 + 1, 0),
            'U' => number((self.day_of_year() + 6 - self.day_of_week()) / 7, 2),
            'W' => number((self.day_of_year() + 6 - (self.day_of_week() + 6) % 7) / 7, 2),
            'e' if plain => number(self.day, 0),
            'e' => out.push_str(&format!("{:2}", self.day)),
            'B' => out.push_str(MONTHS[self.month_index()]),
            'b' | 'h' => out.push_str(&MONTHS[self.month_index()][..3]),
            'A' => out.push_str(DAYS[self.day_of_week() as usize]),
            'a' => out.push_str(&DAYS[self.day_of_week() as usize][..3]),
            'p' => out.push_str(if self.hour < 12 { "AM" } else { "PM" }),
            'F' => out.push_str(&self.format("%Y-%m-%d")),
            'T' | 'X' => out.push_str(&self.format("%H:%M:%S")),
            'R' => out.push_str(&self.format("%H:%M")),
            'r' => out.push_str(&self.format("%I:%M:%S %p")),
            'D' | 'x' => out.push_str(&self.format("%m/%d/%y")),
            'c' => out.push_str(&self.format("%a %b %e %H:%M:%S %Y")),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            'Z' | 'z' => {} // a time without a zone, as transformers takes it
            other => {
                out.push('%');
                out.push(other);
            }
        }
    }
}
