# SPDX-License-Identifier: Apache-2.0
# bash completion of iommuctl. `iommuctl completion install` puts it where bash-completion finds it; else source it.
# Words that never change stand here; domains, devices and what else is alive come from `iommuctl __complete`.
# shellcheck shell=bash disable=SC2034,SC2154

# -- generated --
__iommuctl_command() { # PATH
    verbs=() takes=() opts=()
    case $1 in
    '')
        verbs=(device domain memory pgtable attach detach bind-pgtable unbind-pgtable invalidate topology exec translate fault table check plan apply export recover batch unit backend sim demo completion)
        opts=(--version)
        ;;
    device)
        verbs=(add remove bind unbind list show)
        ;;
    'device add')
        takes=('')
        opts=(--ats --pri '--pasid-bits=')
        ;;
    'device remove')
        takes=(RID)
        opts=(--force)
        ;;
    'device bind')
        takes=(RID)
        ;;
    'device unbind')
        takes=(RID)
        opts=(--force)
        ;;
    'device list')
        opts=(--brief)
        ;;
    'device show')
        takes=(RID)
        ;;
    domain)
        verbs=(create list show destroy map unmap dirty)
        ;;
    'domain create')
        takes=('')
        opts=(--nest-parent '--width=' '--page-sizes=' --dirty '--label=')
        ;;
    'domain list')
        opts=(--brief)
        ;;
    'domain show')
        takes=(DOMAIN)
        ;;
    'domain destroy')
        takes=(DOMAIN)
        opts=(--force)
        ;;
    'domain map')
        takes=(DOMAIN)
        opts=('--iova=' '--size=' '--pa=' '--memory=MEM' '--prot=r|w|rw|rx|rwx')
        ;;
    'domain unmap')
        takes=(DOMAIN)
        opts=('--iova=' '--size=')
        ;;
    'domain dirty')
        takes=(DOMAIN 'on|off|read')
        ;;
    memory)
        verbs=(create list destroy)
        ;;
    'memory create')
        takes=('')
        opts=('--size=' '--path=FILE' '--fd=' '--dma-buf=' --hugepages)
        ;;
    'memory list')
        opts=(--brief)
        ;;
    'memory destroy')
        takes=(MEM)
        opts=(--force)
        ;;
    pgtable)
        verbs=(create map unmap list show destroy)
        ;;
    'pgtable create')
        takes=('')
        opts=('--parent=DOMAIN' '--pool=' '--format=FORMAT' '--label=')
        ;;
    'pgtable map')
        takes=(PGTABLE)
        opts=('--iova=' '--size=' '--gpa=' '--prot=r|w|rw|rx|rwx' --privileged,--user)
        ;;
    'pgtable unmap')
        takes=(PGTABLE)
        opts=('--iova=' '--size=')
        ;;
    'pgtable list')
        opts=(--brief)
        ;;
    'pgtable show')
        takes=(PGTABLE)
        ;;
    'pgtable destroy')
        takes=(PGTABLE)
        opts=(--force)
        ;;
    attach)
        takes=(DOMAIN RID)
        opts=('--pasid=PASID|auto' --replace '--label=')
        ;;
    detach)
        takes=(DOMAIN RID)
        opts=('--pasid=PASID' --force)
        ;;
    bind-pgtable)
        takes=(DOMAIN RID)
        opts=('--addr=' '--pgtable=PGTABLE' '--format=FORMAT' '--cd-pool=' '--pasid=PASID' '--label=')
        ;;
    unbind-pgtable)
        takes=(DOMAIN RID)
        opts=('--pasid=PASID')
        ;;
    invalidate)
        takes=(DOMAIN)
        opts=('--device=RID' '--pasid=PASID' '--iova=' '--size=' --leaf)
        ;;
    topology)
        opts=('--by=domain|device' '--format=tree')
        ;;
    exec)
        takes=('')
        opts=('*--device=RID')
        ;;
    translate)
        takes=(RID '')
        opts=('--pasid=PASID' '--access=r|w|x' --privileged)
        ;;
    fault)
        verbs=(respond list run watch handler)
        ;;
    'fault respond')
        takes=('' '')
        ;;
    'fault list')
        opts=(--brief)
        ;;
    'fault run')
        opts=(--once '--jobs=' '--timeout=')
        ;;
    'fault watch')
        opts=(--follow)
        ;;
    'fault handler')
        verbs=(set clear show)
        ;;
    'fault handler set')
        takes=('DOMAIN|RID' '')
        opts=('--pasid=PASID' --queue --reject --exec --demand-map '--from=MEM')
        ;;
    'fault handler clear')
        takes=('DOMAIN|RID')
        opts=('--pasid=PASID')
        ;;
    'fault handler show')
        takes=('DOMAIN|RID')
        opts=('--pasid=PASID')
        ;;
    table)
        verbs=(list decode dump)
        ;;
    'table list')
        opts=(--brief)
        ;;
    'table decode')
        takes=(STRUCTURE '')
        opts=('--revision=')
        ;;
    'table dump')
        takes=('DOMAIN|PGTABLE|RID')
        ;;
    check)
        ;;
    plan)
        takes=(FILE)
        opts=(--prune '--out=FILE' --detailed-exitcode)
        ;;
    apply)
        takes=(FILE)
        opts=(--prune --keep-going)
        ;;
    export)
        ;;
    recover)
        opts=(--forget)
        ;;
    batch)
        takes=(FILE)
        opts=(--atomic --keep-going)
        ;;
    unit)
        verbs=(list show)
        ;;
    'unit list')
        opts=(--brief)
        ;;
    'unit show')
        takes=('')
        ;;
    backend)
        verbs=(list show)
        ;;
    'backend list')
        opts=(--brief)
        ;;
    'backend show')
        takes=(BACKEND)
        ;;
    sim)
        verbs=(init show reset dma read write)
        ;;
    'sim init')
        opts=('--arch=ARCH' '--ram=' '--tables=' '*--option=')
        ;;
    'sim show')
        ;;
    'sim reset')
        ;;
    'sim dma')
        takes=(RID '')
        opts=(--read '--size=' --write '--data=' '--pasid=PASID' --privileged --translated)
        ;;
    'sim read')
        takes=('' '')
        ;;
    'sim write')
        takes=('' '')
        ;;
    demo)
        opts=('--arch=')
        ;;
    completion)
        verbs=(bash zsh fish install)
        ;;
    'completion bash')
        ;;
    'completion zsh')
        ;;
    'completion fish')
        ;;
    'completion install')
        opts=('--shell=bash|zsh|fish')
        ;;
    *) return 1 ;;
    esac
    opts+=(-j,--json --dry-run --quiet '--backend=BACKEND' '--state=DIR' '--color=auto|always|never' --help)
}

__iommuctl_known() { # METAVAR
    case $1 in
    ARCH) found+=(vtd smmuv3) ;;
    BACKEND) found+=(vtd smmuv3 sim) ;;
    FORMAT) found+=(vtd.first-stage-4 vtd.first-stage-5 smmuv3.stage-1-4k-48 smmuv3.stage-1-16k-48 smmuv3.stage-1-64k-48) ;;
    STRUCTURE) found+=(vtd.root-entry vtd.scalable-root-entry vtd.context-entry vtd.scalable-context-entry vtd.pasid-directory-entry vtd.pasid-entry vtd.first-stage-entry vtd.second-stage-entry vtd.context-cache-invalidate vtd.iotlb-invalidate vtd.device-tlb-invalidate vtd.iec-invalidate vtd.invalidation-wait vtd.pasid-iotlb-invalidate vtd.pasid-cache-invalidate vtd.pasid-device-tlb-invalidate vtd.page-group-response vtd.page-request vtd.pqh vtd.pqt vtd.pqa vtd.prs vtd.pectl vtd.irte vtd.irte-posted vtd.irta vtd.fault-record vtd.ver vtd.cap vtd.ecap vtd.gcmd vtd.gsts vtd.rtaddr vtd.fsts vtd.fectl vtd.pmen vtd.iqh vtd.iqt vtd.iqa vtd.iqercd vtd.ccmd vtd.iva vtd.iotlb-register vtd.ics vtd.iectl smmuv3.l1std smmuv3.ste smmuv3.l1cd smmuv3.cd smmuv3.stage-1-descriptor smmuv3.stage-1-descriptor-64k smmuv3.stage-1-descriptor-ds smmuv3.stage-2-descriptor smmuv3.stage-2-descriptor-64k smmuv3.stage-2-descriptor-ds smmuv3.prefetch-config smmuv3.prefetch-addr smmuv3.cfgi-ste smmuv3.cfgi-ste-range smmuv3.cfgi-cd smmuv3.cfgi-cd-all smmuv3.cfgi-vms-pidm smmuv3.tlbi-nh-all smmuv3.tlbi-nh-asid smmuv3.tlbi-nh-va smmuv3.tlbi-nh-vaa smmuv3.tlbi-el2-all smmuv3.tlbi-el2-asid smmuv3.tlbi-el2-va smmuv3.tlbi-el2-vaa smmuv3.tlbi-s12-vmall smmuv3.tlbi-s2-ipa smmuv3.tlbi-nsnh-all smmuv3.atc-inv smmuv3.pri-resp smmuv3.resume smmuv3.stall-term smmuv3.sync smmuv3.f-uut smmuv3.c-bad-streamid smmuv3.f-ste-fetch smmuv3.c-bad-ste smmuv3.f-bad-ats-treq smmuv3.f-stream-disabled smmuv3.f-transl-forbidden smmuv3.c-bad-substreamid smmuv3.f-cd-fetch smmuv3.c-bad-cd smmuv3.f-cfg-conflict smmuv3.f-vms-fetch smmuv3.f-walk-eabt smmuv3.f-translation smmuv3.f-addr-size smmuv3.f-access smmuv3.f-permission smmuv3.f-tlb-conflict smmuv3.e-page-request smmuv3.page-request smmuv3.idr0 smmuv3.idr1 smmuv3.idr2 smmuv3.idr3 smmuv3.idr5 smmuv3.mpamidr smmuv3.iidr smmuv3.aidr smmuv3.idr6 smmuv3.cr0 smmuv3.cr1 smmuv3.cr2 smmuv3.statusr smmuv3.gbpa smmuv3.irq-ctrl smmuv3.gerror smmuv3.strtab-base smmuv3.strtab-base-cfg smmuv3.cmdq-base smmuv3.cmdq-prod smmuv3.cmdq-cons smmuv3.eventq-base smmuv3.eventq-prod smmuv3.eventq-cons smmuv3.priq-base smmuv3.priq-prod smmuv3.priq-cons smmuv3.irq-cfg0 smmuv3.irq-cfg1 smmuv3.irq-cfg2 smmuv3.priq-irq-cfg2) ;;
    *) return 1 ;;
    esac
}
# -- end --

_iommuctl() {
    if [[ ${COMP_WORDS[COMP_CWORD - 1]} == *[\<\>]* ]]; then
        compopt -o default
        return
    fi

    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} gap piece
    local -a line_words=() verbs=() takes=() opts=() found=()
    # Words as the shell will have them. Readline also cuts at `:`, `=` and `@`, which RIDs, options and names have.
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        gap=${line%%[^[:blank:]]*}
        line=${line#"$gap"}
        [[ $line == "$piece"* ]] || piece=$line
        line=${line#"$piece"}
        if [[ -z $gap && ${#line_words[@]} -gt 0 ]]; then line_words[-1]+=$piece; else line_words+=("$piece"); fi
    done

    local path='' state='' rid='' option='' spec='' used=' ' literal='' word value
    local -i taken=0
    __iommuctl_command ''
    for word in "${line_words[@]:1:${#line_words[@]}-2}"; do
        word=${word//[\'\"\\]/}
        if [[ -n $option ]]; then
            __iommuctl_given "$word"
        elif [[ $word == -- && -z $literal ]]; then
            literal=yes
        elif [[ $word == -?* && -z $literal ]]; then
            __iommuctl_option "${word%%=*}" || return
            [[ -n $option && $word == *=* ]] && __iommuctl_given "${word#*=}"
        elif ((${#verbs[@]})); then
            path+="${path:+ }$word"
            __iommuctl_command "$path" || return
        else
            [[ ${takes[taken]-} == RID ]] && rid=$word
            taken+=1
        fi
    done

    local current=${line_words[-1]} before='' quoted=''
    [[ $current == [\'\"]* ]] && quoted=yes
    current=${current//[\'\"\\]/}
    if [[ -n $option ]]; then
        __iommuctl_values "$spec"
    elif [[ $current == --*=* && -z $literal ]]; then
        __iommuctl_option "${current%%=*}" || return
        before=${current%%=*}=
        current=${current#*=}
        __iommuctl_values "$spec"
    elif [[ $current == -* && -z $literal ]]; then
        __iommuctl_options
    elif ((${#verbs[@]})); then
        found=("${verbs[@]}")
    elif ((taken < ${#takes[@]})); then
        __iommuctl_values "${takes[taken]}"
    elif [[ -z $literal ]]; then
        __iommuctl_options
    fi

    # Readline replaces what stands behind the last character that it cuts at, unless that is quoted; an @ it replaces.
    local breaks=${COMP_WORDBREAKS//[^:=@]/} held=''
    [[ -n $breaks && -z $quoted ]] && held=$before$current && held=${held%"${held##*["$breaks"]}"} && held=${held%@}
    COMPREPLY=()
    for word in "${found[@]}"; do
        [[ $word == "$current"* ]] && word=$before$word && COMPREPLY+=("${word#"$held"}")
    done
}

# What OPTION is: `option` and `spec` are set when a value follows, and it is not offered again.
__iommuctl_option() { # OPTION
    local each names
    for each in "${opts[@]}"; do
        names=${each%%=*}
        [[ ,${names#'*'}, == *",$1,"* ]] || continue
        used+="$names "
        [[ $each == *=* ]] && option=$1 && spec=${each#*=}
        return 0
    done
    return 1
}

# The value of the option before, where other words depend on it.
__iommuctl_given() { # VALUE
    [[ $option == --state ]] && state=${1/#'~/'/"$HOME/"}
    [[ $spec == RID ]] && rid=$1
    option=''
}

# The options that were not given, and those that may be given again.
__iommuctl_options() {
    local each names
    for each in "${opts[@]}"; do
        names=${each%%=*}
        [[ $names != '*'* && $used == *" $names "* ]] && continue
        names=${names#'*'}
        found+=(${names//,/ })
    done
}

# What SPEC stands for: words, and the metavars of what is known, of what is alive, and of files.
__iommuctl_values() { # SPEC
    local each live='' program=${line_words[0]/#'~/'/"$HOME/"}
    local -a parts words
    IFS='|' read -ra parts <<<"$1"
    for each in "${parts[@]}"; do
        case $each in
        DOMAIN | PGTABLE | MEM | RID | PASID) live+="${live:+|}$each" ;;
        FILE | DIR)
            compopt -o filenames
            if [[ $each == DIR ]]; then each=-d; else each=-f; fi
            mapfile -t words < <(compgen "$each" -- "$current")
            found+=("${words[@]}")
            ;;
        *) __iommuctl_known "$each" || found+=("$each") ;;
        esac
    done
    # What the shell would still expand in --state is not expanded here, so that nobody's folder answers.
    [[ -n $live && $state != *[\$\`]* ]] || return
    mapfile -t words < <("$program" __complete "$live" "$state" "$rid" 2>/dev/null)
    found+=("${words[@]}")
}

complete -F _iommuctl iommuctl
