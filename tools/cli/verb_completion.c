/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict completion: for bash, zsh and fish, out of the tables that the
 * command lines are read by. Names of segments and dicts are asked for when
 * they are needed, by `shdict ls`. */
#include "cli.h"

#include <string.h>

/* Words of the command line as the shells number them: a segment comes first
 * in all verbs but those without words. */
static bool takes_segment(const struct cli_verb *v)
{
    return strncmp(v->words + (v->words[0] == '['), "SEGMENT", 7) == 0;
}

static bool takes_dict(const struct cli_verb *v)
{
    return strstr(v->words, "DICT") != NULL ||
           strstr(v->words, "OBJECT") != NULL ||
           strstr(v->words, "QUEUE") != NULL ||
           strstr(v->words, "TOPIC") != NULL;
}

static void options_bash(const struct cli_verb *v)
{
    for (const struct cli_option *o = v->options; o && o->name; o++)
        printf(" --%s", o->name);
    fputs(" --json --help", stdout);
}

static void bash(const struct cli_verb *const *verbs)
{
    puts("_shdict_names() { shdict ls \"$@\" 2>/dev/null | "
         "awk 'NR > 1 { print $1 }'; }\n"
         "_shdict() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]}\n"
         "    local n=0 i words=\"\" segment=\"\"\n"
         "    COMPREPLY=()\n"
         "    for ((i = 2; i < COMP_CWORD; i++)); do\n"
         "        [[ ${COMP_WORDS[i]} == -* ]] && continue\n"
         "        n=$((n + 1))\n"
         "        [[ $n == 1 ]] && segment=${COMP_WORDS[i]}\n"
         "    done\n"
         "    if [[ $COMP_CWORD == 1 ]]; then");
    fputs("        words=\"--help --version", stdout);
    for (unsigned i = 0; verbs[i]; i++)
        printf(" %s", verbs[i]->name);
    puts("\"\n    elif [[ $cur == -* ]]; then\n        case $verb in");
    for (unsigned i = 0; verbs[i]; i++) {
        printf("        %s) words=\"", verbs[i]->name);
        options_bash(verbs[i]);
        puts("\" ;;");
    }
    puts("        esac\n    else\n        case $verb:$n in");
    for (unsigned i = 0; verbs[i]; i++) {
        if (takes_segment(verbs[i]))
            printf("        %s:0) words=$(_shdict_names) ;;\n",
                   verbs[i]->name);
        if (takes_dict(verbs[i]))
            printf("        %s:1) words=$(_shdict_names \"$segment\") ;;\n",
                   verbs[i]->name);
    }
    puts("        completion:0) words=\"bash zsh fish\" ;;\n"
         "        esac\n    fi\n"
         "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
         "}\ncomplete -o default -F _shdict shdict");
}

/* Brackets and colons mean something in zsh's specifications. */
static void quoted(const char *text, const char *special)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\'", stdout);
        else if (strchr(special, *text))
            putchar('\\');
        putchar(*text);
    }
}

static void zsh_option(const char *name, const char *arg, const char *help)
{
    printf("            '--%s[", name);
    quoted(help, "[]:\\");
    fputs("]", stdout);
    if (arg) {
        fputs(":", stdout);
        quoted(arg, "[]:\\");
        fputs(":_files", stdout);
    }
    puts("' \\");
}

static void zsh(const struct cli_verb *const *verbs)
{
    puts("#compdef shdict\n"
         "_shdict_segments() { local -a names; names=(${(f)\"$(shdict ls "
         "2>/dev/null | awk 'NR > 1 { print $1 }')\"}); compadd -a names; }\n"
         "_shdict_dicts() { local -a names; names=(${(f)\"$(shdict ls "
         "${words[2]} 2>/dev/null | awk 'NR > 1 { print $1 }')\"}); "
         "compadd -a names; }\n"
         "_shdict() {\n    local -a verbs; verbs=(");
    for (unsigned i = 0; verbs[i]; i++) {
        printf("        '%s:", verbs[i]->name);
        quoted(verbs[i]->summary, ":\\");
        puts("'");
    }
    puts("    )\n    if ((CURRENT == 2)); then _describe verb verbs; return; "
         "fi\n    local verb=${words[2]}\n    shift words; ((CURRENT--))\n"
         "    case $verb in");
    for (unsigned i = 0; verbs[i]; i++) {
        printf("    %s) _arguments \\\n", verbs[i]->name);
        for (const struct cli_option *o = verbs[i]->options; o && o->name; o++)
            zsh_option(o->name, o->arg, o->help);
        zsh_option("json", NULL, "Write JSON instead of text");
        zsh_option("help", NULL, "Print this help");
        if (takes_segment(verbs[i]))
            puts("            '1:segment:_shdict_segments' \\");
        if (takes_dict(verbs[i]))
            puts("            '2:dict:_shdict_dicts' \\");
        puts("            '*:word:_files' ;;");
    }
    puts("    esac\n}\n_shdict \"$@\"");
}

static void fish(const struct cli_verb *const *verbs)
{
    puts("complete -c shdict -f");
    for (unsigned i = 0; verbs[i]; i++) {
        const char *name = verbs[i]->name;
        printf("complete -c shdict -n __fish_use_subcommand -a %s -d '", name);
        quoted(verbs[i]->summary, "\\");
        puts("'");
        for (const struct cli_option *o = verbs[i]->options; o && o->name;
             o++) {
            printf("complete -c shdict -n '__fish_seen_subcommand_from %s' "
                   "-l %s%s -d '",
                   name, o->name, o->arg ? " -r" : "");
            quoted(o->help, "\\");
            puts("'");
        }
        if (takes_segment(verbs[i]))
            printf("complete -c shdict -n '__fish_seen_subcommand_from %s' -a "
                   "\"(shdict ls 2>/dev/null | awk 'NR > 1 { print \\$1 "
                   "}')\"\n",
                   name);
    }
}

static int run(struct cli_args *args)
{
    const char *shell = args->words[0];

    if (args->json)
        cli_usage(args, "--json: this is a script for a shell");
    if (strcmp(shell, "bash") == 0)
        bash(cli_verbs());
    else if (strcmp(shell, "zsh") == 0)
        zsh(cli_verbs());
    else if (strcmp(shell, "fish") == 0)
        fish(cli_verbs());
    else
        cli_usage(args, "\"%s\" is none of bash, zsh, fish", shell);
    return CLI_YES;
}

const struct cli_verb verb_completion = {
    .name = "completion",
    .words = "SHELL",
    .summary = "Print a completion script for bash, zsh or fish",
    .words_min = 1,
    .words_max = 1,
    .run = run};
